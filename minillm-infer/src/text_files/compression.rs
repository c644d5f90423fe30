//! Compressed files of any number of parts: what the libraries read is one of them.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The first byte of a gzip member.
const GZIP_MAGIC: u8 = 0x1f;

/// Reads a .gz file of any number of members, as `gzip` does: zeros behind a member are padding, which archives on tapes
/// and disk images end with. flate2's own reader of several members takes them for a broken header.
pub struct GzipMembers<R> {
    state: State<R>,
}

enum State<R> {
    /// Before the first member.
    Start(R),
    /// Behind a member.
    Between(R),
    Inside(GzDecoder<R>),
    /// At the end of the file, or after an error.
    End,
}

impl<R: BufRead> GzipMembers<R> {
    /// Reads from the start of a file.
    pub fn new(source: R) -> Self {
        Self { state: State::Start(source) }
    }
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            self.state = match std::mem::replace(&mut self.state, State::End) {
                State::Inside(mut decoder) => match decoder.read(buffer)? {
                    0 => State::Between(decoder.into_inner()),
                    n => {
                        self.state = State::Inside(decoder);
                        return Ok(n);
                    }
                },
                State::Start(mut source) => match source.fill_buf()?.first().copied() {
                    None => State::End,
                    Some(GZIP_MAGIC) => State::Inside(GzDecoder::new(source)),
                    Some(_) => return Err(invalid("it is not compressed with gzip, as its name says")),
                },
                State::Between(mut source) => match first_after_padding(&mut source)? {
                    None => State::End,
                    Some(GZIP_MAGIC) => State::Inside(GzDecoder::new(source)),
                    Some(_) => return Err(invalid("what follows its last gzip member is neither another nor padding")),
                },
                State::End => return Ok(0),
            }
        }
    }
}

/// Skips zeros and looks at the byte that follows; `None` at the end of the file.
fn first_after_padding(source: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let read = source.fill_buf()?;
        let zeros = read.iter().take_while(|&&byte| byte == 0).count();
        let next = read.get(zeros).copied();
        let is_end = read.is_empty();
        source.consume(zeros);
        if is_end || next.is_some() {
            return Ok(next);
        }
    }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Reads a .zst file of any number of frames, of which some may be skippable. ruzstd's own reader ends after the first,
/// but `zstd` run on several files and parallel compressors write many. Zeros behind a frame are padding.
pub struct ZstdFrames<R> {
    source: R,
    decoder: FrameDecoder,
    /// Whether a frame was read.
    started: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    /// Reads from the start of a file.
    pub fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), started: false }
    }

    /// Goes to the next frame that holds data. `false` at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        let (expected, found) = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
        if expected.is_some() && expected != found {
            return Err(invalid("the checksum of a zstd frame is wrong"));
        }
        loop {
            let next = if self.started {
                first_after_padding(&mut self.source)?
            } else {
                self.source.fill_buf()?.first().copied()
            };
            if next.is_none() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.started = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    self.started = true;
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.source).take(length), &mut io::sink())? < length {
                        return Err(invalid("a skippable zstd frame is cut"));
                    }
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::BadMagicNumber(_))) => {
                    return Err(invalid(if self.started {
                        "what follows its last zstd frame is neither another nor padding"
                    } else {
                        "it is not compressed with zstd, as its name says"
                    }));
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.decoder.is_finished() {
                if !self.next_frame()? {
                    return Ok(0);
                }
                continue;
            }
            let step = BlockDecodingStrategy::UptoBytes(buffer.len());
            self.decoder
                .decode_blocks(&mut self.source, step)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::text_files::{Silent, TextFile};

    fn read(path: &Path) -> io::Result<String> {
        let mut text = String::new();
        TextFile::new(path).unwrap().open(&Silent).unwrap().read_to_string(&mut text)?;
        Ok(text)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    const SKIPPABLE: [u8; 11] = [0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3];

    #[test]
    fn files_of_several_parts_are_read_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let long = (0..200_000).map(|i| format!("{i} ")).collect::<Vec<_>>().concat();
        let expected = format!("first {long}");
        let padding = vec![0; 3 << 20]; // longer than a buffer
        let skippable = SKIPPABLE.to_vec();
        for (name, parts) in [
            ("a.txt", vec![expected.clone().into_bytes()]),
            ("a.TXT.gz", vec![gzip(b"first "), gzip(long.as_bytes())]),
            ("b.txt.gz", vec![gzip(expected.as_bytes()), padding.clone()]),
            ("c.txt.gz", vec![gzip(b"first "), vec![0; 7], gzip(long.as_bytes()), gzip(b""), vec![0]]),
            ("a.jsonl.zst", vec![zstd(b"first "), skippable.clone(), zstd(long.as_bytes())]),
            ("b.txt.zst", vec![skippable.clone(), zstd(expected.as_bytes()), skippable.clone()]),
            ("c.txt.zst", vec![zstd(b"first "), vec![0; 7], zstd(long.as_bytes()), padding]),
        ] {
            let path = dir.path().join(name);
            fs_err::write(&path, parts.concat()).unwrap();
            assert!(read(&path).unwrap() == expected, "{name}");
        }
        for name in ["empty.txt.gz", "empty.txt.zst"] {
            fs_err::write(dir.path().join(name), b"").unwrap();
            assert_eq!(read(&dir.path().join(name)).unwrap(), "");
        }
    }

    #[test]
    fn what_is_cut_or_follows_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let text = (0..100_000).map(|i| format!("{} ", i * 7919 % 10_007)).collect::<Vec<_>>().concat();
        let (gzipped, zstd) = (gzip(text.as_bytes()), zstd(text.as_bytes()));
        for (name, bytes, expected) in [
            ("a.txt.gz", gzipped[..gzipped.len() / 2].to_vec(), ""),
            ("b.txt.gz", gzipped[..gzipped.len() - 3].to_vec(), ""),
            ("c.txt.gz", [&gzipped[..], b"more"].concat(), "neither another nor padding"),
            ("d.txt.gz", [&gzipped[..], &[0; 9], b"more"].concat(), "neither another nor padding"),
            ("e.txt.gz", b"plain text".to_vec(), "not compressed with gzip"),
            ("a.txt.zst", zstd[..zstd.len() / 2].to_vec(), ""),
            ("b.txt.zst", [&zstd[..], b"more"].concat(), "neither another nor padding"),
            ("c.txt.zst", [&zstd[..], &SKIPPABLE[..9]].concat(), "skippable zstd frame is cut"),
            ("d.txt.zst", b"plain text".to_vec(), "not compressed with zstd"),
        ] {
            let path = dir.path().join(name);
            fs_err::write(&path, bytes).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
