//! `metrics.jsonl`: one JSON object a line, `{"step":10,"tokens":640,"train/loss":2.5}`, for scripts and notebooks
//! (`pandas.read_json(path, lines=True)`).
//!
//! A line is written with one call, so only the last can be torn by a crash. Resuming cuts off a torn line and every
//! line beyond the step resumed from: those steps are taken again, and each appears in the file once.

use std::io::{BufRead, BufReader};
use std::path::Path;

use fs_err::{File, OpenOptions};
use serde_json::{Map, Value};

use super::append_file::AppendFile;
use super::{Record, Sink, tag};
use crate::error::{Error, Result};

/// The file, open for appending.
#[derive(Debug)]
pub struct Jsonl {
    file: AppendFile,
}

impl Jsonl {
    /// Starts an empty file, replacing what was there.
    ///
    /// # Errors
    /// A path that cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).and_then(AppendFile::new).map_err(|source| io("create", source))?;
        Ok(Self { file })
    }

    /// Continues the file of a run that goes on after `step` steps: records of later steps are cut off. A missing file
    /// is started.
    ///
    /// # Errors
    /// A path that cannot be written; a line, not the last, that is no record.
    pub fn resume(path: &Path, step: usize) -> Result<Self> {
        let file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(|error| io("open", error))?;
        let keep = length_up_to(&file, path, step)?;
        file.set_len(keep).map_err(|error| io("cut", error))?;
        Ok(Self { file: AppendFile::new(file).map_err(|error| io("open", error))? })
    }
}

/// Gives the records of the file in `path` to `take`, in order, one at a time: a night's do not have to fit in memory. The last
/// line may be torn by a crash and is then left out.
///
/// # Errors
/// A file that cannot be read.
pub fn read(path: &Path, mut take: impl FnMut(Record)) -> std::io::Result<()> {
    let (mut reader, mut line) = (BufReader::new(File::open(path)?), Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        if let Some(record) = parse(&line) {
            take(record);
        }
        line.clear();
    }
    Ok(())
}

/// A record as it was before it became a line.
fn parse(line: &[u8]) -> Option<Record> {
    let line: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let count = |key| line.get(key).and_then(Value::as_u64);
    let value = |tag: &'static str| Some((tag, line.get(tag)?.as_f64()?));
    let values = tag::ALL.into_iter().filter_map(value).collect();
    Some(Record { step: count("step")? as usize, tokens: count("tokens")?, values })
}

impl Sink for Jsonl {
    fn record(&mut self, record: &Record) -> Result<()> {
        let line = to_line(record);
        self.file.append(line.as_bytes()).map_err(|error| io("write", error))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|error| io("write", error))
    }
}

fn io(action: &'static str, source: std::io::Error) -> Error {
    Error::Io { action, what: "the metrics", source }
}

/// Keys stand in the record's order; JSON has no infinities, so values that are not finite are left out.
fn to_line(record: &Record) -> String {
    let finite = record.values.iter().filter(|(_, value)| value.is_finite());
    // `Value` writes the fewest digits that read back as the same number, and escapes the name.
    let values: Vec<_> = finite.map(|(tag, value)| format!(",{}:{}", Value::from(*tag), Value::from(*value))).collect();
    format!("{{\"step\":{},\"tokens\":{}{}}}\n", record.step, record.tokens, values.concat())
}

/// How many bytes at the start of the file are whole records of steps up to `step`.
fn length_up_to(file: &File, path: &Path, step: usize) -> Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut keep, mut number, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        number += 1;
        let length = reader.read_until(b'\n', &mut line).map_err(|error| io("read", error))?;
        match recorded_step(&line) {
            Some(recorded) if recorded <= step as u64 => keep += length as u64,
            Some(_) => return Ok(keep),
            // Torn, or past the end.
            None if reader.fill_buf().map_err(|error| io("read", error))?.is_empty() => return Ok(keep),
            None => {
                return Err(Error::Run {
                    path: path.to_owned(),
                    problem: format!("line {number} is not a record of this run"),
                    hint: "remove that line, or move the file away and resume again".to_owned(),
                });
            }
        }
    }
}

/// The step of a whole line, `None` if it is not one.
fn recorded_step(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\n")?;
    let record: Map<String, Value> = serde_json::from_slice(line).ok()?;
    record.get("step")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: usize) -> Record {
        Record::new(step, step as u64 * 64).with(tag::TRAIN_LOSS, 2.5).with(tag::TRAIN_LR, 1e-4)
    }

    fn write_steps(path: &Path, steps: &[usize]) {
        let mut sink = Jsonl::create(path).unwrap();
        for &step in steps {
            sink.record(&record(step)).unwrap();
        }
        sink.flush().unwrap();
    }

    fn steps(path: &Path) -> Vec<u64> {
        let text = fs_err::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| recorded_step(format!("{line}\n").as_bytes()).unwrap()).collect()
    }

    #[test]
    fn one_object_a_line_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut sink = Jsonl::create(&path).unwrap();
        sink.record(&record(10)).unwrap();
        sink.record(&Record::new(20, 1280).with(tag::VAL_LOSS, f64::INFINITY).with(tag::VAL_GAP, 0.1)).unwrap();
        let expected = "{\"step\":10,\"tokens\":640,\"train/loss\":2.5,\"train/lr\":0.0001}\n\
                        {\"step\":20,\"tokens\":1280,\"val/gap\":0.1}\n";
        assert_eq!(fs_err::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn resuming_cuts_what_will_be_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        write_steps(&path, &[10, 20, 20, 30]);
        let mut sink = Jsonl::resume(&path, 20).unwrap();
        assert_eq!(steps(&path), [10, 20, 20]);
        sink.record(&record(30)).unwrap();
        assert_eq!(steps(&path), [10, 20, 20, 30]);
        Jsonl::resume(&path, 5).unwrap();
        assert!(steps(&path).is_empty());
        let missing = folder.path().join("new.jsonl");
        Jsonl::resume(&missing, 5).unwrap().record(&record(10)).unwrap();
        assert_eq!(steps(&missing), [10]);
    }

    /// Whatever byte a crash stopped at, what is left is whole lines and can be written on.
    #[test]
    fn a_torn_last_line_is_repaired() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        write_steps(&path, &[10, 20]);
        let whole = fs_err::read(&path).unwrap();
        let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for length in 0..=whole.len() {
            fs_err::write(&path, &whole[..length]).unwrap();
            Jsonl::resume(&path, 100).unwrap().record(&record(30)).unwrap();
            let mut expected = vec![10, 20, 30];
            expected.drain(usize::from(length >= first) + usize::from(length == whole.len())..2);
            assert_eq!(steps(&path), expected, "cut at byte {length}");
        }
        fs_err::write(&path, [whole.as_slice(), b"\0\0\0\n"].concat()).unwrap();
        Jsonl::resume(&path, 100).unwrap();
        assert_eq!(steps(&path), [10, 20]);
    }

    #[test]
    fn a_broken_line_in_the_middle_is_not_silently_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let text = "{\"step\":1,\"tokens\":1}\nhello\n{\"step\":2,\"tokens\":2}\n";
        fs_err::write(&path, text).unwrap();
        let error = Jsonl::resume(&path, 5).unwrap_err();
        assert!(error.to_string().ends_with("line 2 is not a record of this run"), "{error}");
        assert_eq!(fs_err::read_to_string(&path).unwrap(), text);
    }
}
