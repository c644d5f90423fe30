//! `TensorBoard` events: `tensorboard --logdir RUN` draws the curves of a run, or of many beside one another.
//!
//! An event file is a series of `TFRecord`s, each one protobuf message `Event` (tensorflow/core/util/event.proto):
//!
//! ```text
//! record:  length u64 | masked crc of length u32 | message | masked crc of message u32       all little endian
//! Event:   1 wall_time double | 2 step int64 | 3 file_version string | 5 summary | 7 session_log
//! Summary: 1 value { 1 tag string | 2 simple_value float }       SessionLog: 1 status enum (START = 1)
//! ```
//!
//! Only these fields are needed, so they are written by hand. A process writes one file. It opens with a version and
//! with `SessionLog START`, on which `TensorBoard` drops what earlier files of the run say about that step and later
//! ones.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use fs_err::{File, OpenOptions};

use super::append_file::AppendFile;
use super::{Record, Sink};
use crate::error::{Error, Result};

/// One event file, open for appending. The x axis of every curve is the step.
#[derive(Debug)]
pub struct TensorBoard {
    file: AppendFile,
}

impl TensorBoard {
    /// Starts a new event file in `folder` for a run that goes on after `step` steps (0 for a new one).
    ///
    /// # Errors
    /// A folder that cannot be read or written.
    pub fn create(folder: &Path, step: usize) -> Result<Self> {
        let file = AppendFile::new(next_file(folder)?).map_err(|error| io("open", error))?;
        let mut sink = Self { file };
        sink.write(&event(0, FILE_VERSION, b"brain.Event:2"))?;
        // TensorBoard keeps the steps *below* this one, and `step` itself is done.
        let session = [key(SESSION_STATUS, VARINT), vec![SESSION_START]].concat();
        sink.write(&event(step + 1, SESSION_LOG, &session))?;
        Ok(sink)
    }

    /// One `TFRecord` in one call, so that a crash can tear only the last one; readers stop there.
    fn write(&mut self, message: &[u8]) -> Result<()> {
        let length = (message.len() as u64).to_le_bytes();
        let record = [&length[..], &masked_crc(&length), message, &masked_crc(message)].concat();
        self.file.append(&record).map_err(|error| io("write", error))
    }
}

impl Sink for TensorBoard {
    fn record(&mut self, record: &Record) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in record.values.iter().filter(|(_, value)| value.is_finite()) {
            let scalar = [key(SCALAR, FIXED32), (*value as f32).to_le_bytes().to_vec()].concat();
            summary.extend(field(SUMMARY_VALUE, &[field(TAG, tag.as_bytes()), scalar].concat()));
        }
        self.write(&event(record.step, SUMMARY, &summary))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|error| io("write", error))
    }
}

// Field numbers of event.proto and summary.proto, and protobuf's wire types.
const WALL_TIME: u8 = 1;
const STEP: u8 = 2;
const FILE_VERSION: u8 = 3;
const SUMMARY: u8 = 5;
const SESSION_LOG: u8 = 7;
const SUMMARY_VALUE: u8 = 1;
const TAG: u8 = 1;
const SCALAR: u8 = 2;
const SESSION_STATUS: u8 = 1;
const SESSION_START: u8 = 1;
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// An `Event` of this moment whose one content is the field `number`.
fn event(step: usize, number: u8, content: &[u8]) -> Vec<u8> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    let wall_time = [key(WALL_TIME, FIXED64), seconds.to_le_bytes().to_vec()].concat();
    [wall_time, key(STEP, VARINT), varint(step as u64), field(number, content)].concat()
}

/// A field of bytes, text or a message inside.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [key(number, BYTES), varint(content.len() as u64), content.to_vec()].concat()
}

/// What stands before a field's value. One byte, as all numbers here are below 16.
fn key(number: u8, wire_type: u8) -> Vec<u8> {
    vec![number << 3 | wire_type]
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// CRC-32C, turned and shifted so that a checksum of data that holds checksums stays good (tensorflow's crc32c.h).
fn masked_crc(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A new file after those in the folder. `TensorBoard` knows event files by `tfevents` in the name and reads them in
/// the order of their names, so they are numbered.
fn next_file(folder: &Path) -> Result<File> {
    fs_err::create_dir_all(folder).map_err(|error| io("create", error))?;
    let mut number = 0;
    for entry in fs_err::read_dir(folder).map_err(|error| io("read", error))? {
        let name = entry.map_err(|error| io("read", error))?.file_name();
        let taken =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|number| number.parse::<u32>().ok());
        number = number.max(taken.map_or(0, |taken| taken.saturating_add(1)));
    }
    let path = folder.join(format!("{PREFIX}{number:06}"));
    OpenOptions::new().append(true).create_new(true).open(path).map_err(|error| io("create", error))
}

const PREFIX: &str = "events.out.tfevents.minillm.";

fn io(action: &'static str, source: std::io::Error) -> Error {
    Error::Io { action, what: "the TensorBoard events", source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tag;

    /// Reads a file back: each record's checksums are tested, and its message returned.
    fn messages(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs_err::read(path).unwrap();
        let (mut rest, mut messages) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]));
            let message = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(message));
            messages.push(message.to_vec());
            rest = &rest[16 + length..];
        }
        messages
    }

    /// The fields of a message as (number, payload); varints as their value in eight bytes.
    fn fields(mut message: &[u8]) -> Vec<(u8, Vec<u8>)> {
        fn read_varint(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return value;
                }
            }
        }
        let mut fields = Vec::new();
        while !message.is_empty() {
            let key = read_varint(&mut message) as u8;
            let length = match key & 7 {
                VARINT => {
                    fields.push((key >> 3, read_varint(&mut message).to_le_bytes().to_vec()));
                    continue;
                }
                FIXED64 => 8,
                FIXED32 => 4,
                _ => read_varint(&mut message) as usize,
            };
            fields.push((key >> 3, message[..length].to_vec()));
            message = &message[length..];
        }
        fields
    }

    fn step_of(message: &[u8]) -> u64 {
        let (_, step) = fields(message).into_iter().find(|(number, _)| *number == STEP).unwrap();
        u64::from_le_bytes(step.try_into().unwrap())
    }

    #[test]
    fn scalars_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = TensorBoard::create(folder.path(), 0).unwrap();
        let record = Record::new(300, 19_200).with(tag::TRAIN_LOSS, 2.5).with(tag::TRAIN_LR, f64::NAN);
        sink.record(&record.with(tag::VAL_LOSS, 0.1)).unwrap();
        sink.flush().unwrap();
        let messages = messages(&folder.path().join("events.out.tfevents.minillm.000000"));
        assert_eq!(messages.len(), 3);
        assert_eq!(fields(&messages[0])[2], (FILE_VERSION, b"brain.Event:2".to_vec()));
        assert_eq!(fields(&messages[1])[2], (SESSION_LOG, vec![8, 1]));
        assert_eq!((step_of(&messages[1]), step_of(&messages[2])), (1, 300));
        let (number, summary) = fields(&messages[2]).remove(2);
        assert_eq!(number, SUMMARY);
        let scalars: Vec<_> = fields(&summary).iter().map(|(_, value)| fields(value)).collect();
        let expected =
            |tag: &str, value: f32| vec![(TAG, tag.as_bytes().to_vec()), (SCALAR, value.to_le_bytes().to_vec())];
        assert_eq!(scalars, [expected("train/loss", 2.5), expected("val/loss", 0.1)]);
    }

    #[test]
    fn each_process_has_a_file_of_its_own_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for step in [0, 500, 500] {
            TensorBoard::create(folder.path(), step).unwrap();
        }
        let last = messages(&folder.path().join("events.out.tfevents.minillm.000002"));
        assert_eq!(step_of(&last[1]), 501);
    }

    /// The check values of RFC 3720 (CRC-32C) for 32 zero bytes, masked, and of protobuf's own example for varints.
    #[test]
    fn checksums_and_varints() {
        let crc: u32 = 0x8a91_36aa;
        assert_eq!(crc32c::crc32c(&[0; 32]), crc);
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffau32.to_le_bytes());
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(varint(u64::MAX).len(), 10);
    }
}
