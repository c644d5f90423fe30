//! A file that grows by whole records.

use std::io::{self, Seek, SeekFrom, Write};

use fs_err::File;

/// A file that is only added to. What a failed write left of a record, on a full disk, is cut off again, so that the next one
/// does not stand behind half of it.
#[derive(Debug)]
pub(super) struct AppendFile {
    file: File,
    length: u64,
}

impl AppendFile {
    /// Goes on at the end of `file`.
    pub(super) fn new(mut file: File) -> io::Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, length })
    }

    /// Adds a record, whole or not at all.
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(record);
        if written.is_ok() {
            self.length += record.len() as u64;
        } else {
            // The first error is the one to report.
            let _ =
                self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)).map(drop));
        }
        written
    }

    /// Waits until all of it is on the disk.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}
