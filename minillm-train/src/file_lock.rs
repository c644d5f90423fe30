//! One process at a time: a lock on a file, which the system releases however its holder ends.

use std::fs::TryLockError;
use std::io;
use std::path::Path;

use fs_err as fs;

/// A lock, held until dropped. Some network and cloud drives have no locks; work there must still be possible, so that the
/// lock is then taken without being held, see [`FileLock::is_held`].
#[derive(Debug)]
pub struct FileLock {
    _file: fs::File,
    is_held: bool,
}

impl FileLock {
    /// Takes the lock on the file at `path`, which is created if need be. `None` while another process holds it.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file, is_held: true })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(_)) => Ok(Some(Self { _file: file, is_held: false })),
        }
    }

    /// The same, waiting for as long as another process holds it. Before that it calls `waits`.
    pub fn wait(path: &Path, waits: impl FnOnce()) -> io::Result<Self> {
        if let Some(lock) = Self::try_take(path)? {
            return Ok(lock);
        }
        waits();
        let file = open(path)?;
        let is_held = file.lock().is_ok();
        Ok(Self { _file: file, is_held })
    }

    /// Whether other processes are kept out: `false` where the drive has no locks.
    pub fn is_held(&self) -> bool {
        self.is_held
    }
}

fn open(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_next_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let first = FileLock::try_take(&path).unwrap().unwrap();
        assert!(first.is_held());
        assert!(FileLock::try_take(&path).unwrap().is_none());
        let (says, heard) = mpsc::channel();
        thread::scope(|scope| {
            let second = scope.spawn(|| FileLock::wait(&path, || says.send(()).unwrap()).unwrap());
            heard.recv().unwrap(); // it waits, so
            drop(first); // lets it in
            assert!(second.join().unwrap().is_held());
        });
        let untroubled = FileLock::wait(&path, || panic!("nobody holds it")).unwrap();
        assert!(untroubled.is_held());
        assert!(FileLock::try_take(&folder.path().join("no/folder")).is_err());
    }
}
