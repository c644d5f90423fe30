//! Files that survive a crash: written beside, flushed to disk, and only then renamed into place.
//!
//! A rename swaps the old for the new in one step, but the system may carry it out on disk before the data it stands for,
//! and a power failure in between leaves an empty file under the final name. So the order is always: data to disk,
//! rename, directory to disk.
//!
//! A checkpoint changes the disk through [`Disk`] alone, call by call. What a stop after any call leaves behind is listed in
//! the trainer's `publish`, and its test stops there, after each call in turn. Errors name the path.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fs_err as fs;

/// The calls that change a disk: each happens or does not, but for [`write`](Self::write), which may be torn.
///
/// Reading needs none of them. [`System`] is the disk there is; a test has others, which stop or fail at a chosen call.
pub trait Disk: Debug + Send + Sync {
    /// Creates a directory in one that exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates or empties the file at `path` and lets `fill` write it and close it: Windows does not rename an open file.
    fn write(&self, path: &Path, fill: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()>;

    /// Waits until the file's content is on the disk.
    fn flush_file(&self, path: &Path) -> io::Result<()>;

    /// Waits until the names in `directory` are on the disk: what was created, renamed and removed there.
    ///
    /// Windows has no such call (NTFS keeps the order of such changes in its journal), and some network file systems refuse
    /// it; there, nothing more can be done.
    fn flush_names(&self, directory: &Path) -> io::Result<()>;

    /// Renames a file or a directory within one parent; a file may replace a file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file or a link.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
}

/// The computer's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Disk for System {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn write(&self, path: &Path, fill: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
        fill(path)
    }

    fn flush_file(&self, path: &Path) -> io::Result<()> {
        // Windows flushes only what is open for writing; elsewhere reading is enough, and a read-only file has no more.
        fs::OpenOptions::new().read(true).write(cfg!(windows)).open(path)?.sync_all()
    }

    fn flush_names(&self, directory: &Path) -> io::Result<()> {
        if cfg!(windows) {
            return Ok(());
        }
        match fs::File::open(directory)?.sync_all() {
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            done => done,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        // On Windows a file, or any file below a directory, that a virus scanner or an indexer has just opened stops the
        // rename. They let go soon.
        let mut attempts = if cfg!(windows) { 20 } else { 1 };
        loop {
            attempts -= 1;
            match fs::rename(from, to) {
                Err(error) if attempts > 0 && error.kind() != io::ErrorKind::NotFound => {
                    thread::sleep(Duration::from_millis(50));
                }
                done => break done,
            }
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }
}

/// Creates `path` and the directories above it that are missing, so that they are still there after a power failure.
pub fn create_directory(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent(path);
    create_directory(disk, parent)?;
    match disk.create_dir(path) {
        Err(_) if path.is_dir() => {} // another process was faster
        done => done?,
    }
    disk.flush_names(parent)
}

/// Writes `bytes` to the file at `path`.
pub fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    disk.write(path, &mut |path| fs::write(path, bytes))
}

/// Replaces the file at `path` by one that holds `bytes`: a reader sees the old content or the new, never a part.
///
/// The temporary file beside it, `.NAME.part`, has a fixed name: what a crash leaves is overwritten by the next write,
/// and two processes must not write the same file at once.
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = part_file(path);
    let written = write_file(disk, &temporary, bytes)
        .and_then(|()| disk.flush_file(&temporary))
        .and_then(|()| rename(disk, &temporary, path));
    if written.is_err() && temporary.exists() {
        let _ = disk.remove_file(&temporary); // the first error is the one to report
    }
    written
}

/// The temporary name beside `path` under which its content is written first: `.NAME.part`.
pub fn part_file(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".part");
    path.with_file_name(name)
}

/// Flushes every file and directory below `directory`, and itself, to disk.
pub fn flush_tree(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            flush_tree(disk, &entry.path())?;
        } else {
            disk.flush_file(&entry.path())?;
        }
    }
    disk.flush_names(directory)
}

/// Renames a file or a directory within one parent and flushes that parent.
pub fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    disk.rename(from, to)?;
    disk.flush_names(parent(to))
}

/// Removes a directory and everything below it. Links are removed, not followed.
pub fn remove_tree(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(disk, &entry.path())?;
        } else {
            disk.remove_file(&entry.path())?;
        }
    }
    disk.remove_dir(directory)
}

/// The directory that holds `path`; `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("best.json");
        fs::write(folder.path().join(".best.json.part"), "left by a crash, and longer").unwrap();
        for content in ["one", "another one", ""] {
            replace_file(&System, &path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(names(folder.path()), ["best.json"]);
        }
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_and_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("best.json");
        fs::create_dir_all(path.join("in the way")).unwrap();
        let error = replace_file(&System, &path, b"new").unwrap_err().to_string();
        assert!(error.contains("best.json"), "{error}");
        assert_eq!(names(folder.path()), ["best.json"]);
    }

    #[test]
    fn directories_are_created_below_existing_and_missing_ones() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_directory(&System, &deep).unwrap();
        create_directory(&System, &deep).unwrap();
        fs::write(deep.join("file"), "x").unwrap();
        flush_tree(&System, folder.path()).unwrap();
        let error = create_directory(&System, &deep.join("file/d")).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
    }
}
