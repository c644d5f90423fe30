//! Disks that stop, fail or forget at a chosen call.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fs_err as fs;
use minillm_model::checkpoint::durable::{Disk, System, parent};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// The computer stops after this call, counted from 1; 0 is before the first. No call after it has an effect.
    StopAfter(usize),
    /// The computer stops in the middle of this call, which writes a file.
    StopWithin(usize),
    /// The disk is full from this call on: nothing can be created or written, but names can be changed and removed.
    FullFrom(usize),
    /// This call alone fails.
    FailOnce(usize),
}

/// What a stopped computer has lost of what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process was killed; the system still writes everything.
    Nothing,
    /// Files are there, and empty.
    Contents,
    /// Names created, renamed and removed since their directory was flushed are as before.
    Names,
    /// The same of the run's own directory alone: directories are written one by one.
    OwnNames,
    /// Contents and names.
    Both,
}

pub const LOSSES: [Loss; 5] = [Loss::Nothing, Loss::Contents, Loss::Names, Loss::OwnNames, Loss::Both];

/// The computer's disk with a fault, and a record of what has not been flushed yet.
pub struct FaultyDisk {
    fault: Fault,
    graveyard: tempfile::TempDir,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was asked for, in order.
    calls: Vec<Call>,
    stopped: bool,
    /// In the order of the changes, with their paths as they are now unless an unflushed renaming moved them later.
    unflushed: Vec<Change>,
    buried: usize,
}

/// A call and the file it is about.
#[derive(Clone, Debug)]
pub struct Call {
    pub verb: &'static str,
    pub path: PathBuf,
}

enum Change {
    Created(PathBuf),
    Filled(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, replaced: Option<PathBuf> },
    RemovedFile { path: PathBuf, copy: PathBuf },
    RemovedDir(PathBuf),
}

impl Change {
    /// The directory that must be flushed for it to last; `None` for a content.
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Filled(_) => None,
            Self::Created(path) | Self::RemovedFile { path, .. } | Self::RemovedDir(path) => Some(parent(path)),
            Self::Renamed { to, .. } => Some(parent(to)),
        }
    }

    /// A renaming has become lasting: what is below `from` is below `to` for good.
    fn moved(&mut self, from: &Path, to: &Path) {
        let follow = |path: &mut PathBuf| {
            if let Ok(rest) = path.strip_prefix(from) {
                *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        };
        match self {
            Self::Created(path) | Self::Filled(path) | Self::RemovedFile { path, .. } | Self::RemovedDir(path) => {
                follow(path);
            }
            Self::Renamed { from, to, .. } => [from, to].into_iter().for_each(follow),
        }
    }
}

impl FaultyDisk {
    pub fn new(fault: Fault) -> Self {
        Self { fault, graveyard: tempfile::tempdir().unwrap(), state: Mutex::default() }
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Makes the disk, with the run in `run`, what is found after the computer was switched on again.
    pub fn lose(&self, loss: Loss, run: &Path) {
        let mut unflushed = std::mem::take(&mut self.state.lock().unwrap().unflushed);
        let is_lost = |change: &Change| match (loss, change.directory()) {
            (Loss::Nothing, _) => false,
            (Loss::Both, _) => true,
            (Loss::Contents, directory) => directory.is_none(),
            (Loss::Names, directory) => directory.is_some(),
            (Loss::OwnNames, directory) => directory == Some(run),
        };
        // A renaming that stays moves what was changed before it.
        for index in 0..unflushed.len() {
            let (earlier, later) = unflushed.split_at_mut(index);
            if is_lost(&later[0]) {
                continue;
            }
            if let Change::Renamed { from, to, .. } = &later[0] {
                for change in earlier {
                    change.moved(from, to);
                }
            }
        }
        for change in unflushed.into_iter().rev().filter(is_lost) {
            match change {
                Change::Filled(path) if path.exists() => fs::write(&path, "").unwrap(),
                Change::Filled(_) => {}
                Change::Created(path) if path.is_dir() => fs::remove_dir_all(path).unwrap(),
                Change::Created(path) => fs::remove_file(path).unwrap(),
                Change::Renamed { from, to, replaced } => {
                    fs::rename(&to, from).unwrap();
                    if let Some(copy) = replaced {
                        fs::rename(copy, to).unwrap();
                    }
                }
                Change::RemovedFile { path, copy } => fs::rename(copy, path).unwrap(),
                Change::RemovedDir(path) => fs::create_dir(path).unwrap(),
            }
        }
    }

    /// One call: counts it, carries it out unless the fault prevents that, and notes what is not flushed.
    fn call(
        &self,
        verb: &'static str,
        path: &Path,
        carry_out: impl FnOnce() -> io::Result<()>,
        note: impl FnOnce(&mut State),
    ) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(Call { verb, path: path.to_owned() });
        let number = state.calls.len();
        let stopped = || Err(io::Error::other("the computer has stopped"));
        let full =
            || Err(io::Error::new(io::ErrorKind::StorageFull, format!("`{}`: the disk is full", path.display())));
        if state.stopped || self.fault == Fault::StopAfter(0) {
            return stopped();
        }
        match self.fault {
            Fault::FailOnce(call) if call == number => return full(),
            Fault::FullFrom(call) if call <= number && ["create", "write", "flush"].contains(&verb) => {
                if verb == "write" {
                    let _ = fs::write(path, ""); // the name fits, the content does not
                }
                return full();
            }
            _ => {}
        }
        carry_out()?;
        note(&mut state);
        match self.fault {
            Fault::StopWithin(call) if call == number => {
                let content = fs::read(path)?;
                fs::write(path, &content[..content.len() / 2])?;
            }
            Fault::StopAfter(call) if call == number => {}
            _ => return Ok(()),
        }
        state.stopped = true;
        stopped()
    }

    /// A place for what is removed or replaced.
    fn bury(&self, path: &Path) -> io::Result<PathBuf> {
        let mut state = self.state.lock().unwrap();
        state.buried += 1;
        let copy = self.graveyard.path().join(state.buried.to_string());
        fs::copy(path, &copy)?;
        Ok(copy)
    }
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyDisk({:?})", self.fault)
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.call(
            "create",
            path,
            || System.create_dir(path),
            |state| state.unflushed.push(Change::Created(path.to_owned())),
        )
    }

    fn write(&self, path: &Path, fill: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
        let is_new = !path.exists();
        self.call(
            "write",
            path,
            || System.write(path, fill),
            |state| {
                if is_new {
                    state.unflushed.push(Change::Created(path.to_owned()));
                }
                state.unflushed.push(Change::Filled(path.to_owned()));
            },
        )
    }

    fn flush_file(&self, path: &Path) -> io::Result<()> {
        self.call(
            "flush",
            path,
            || System.flush_file(path),
            |state| {
                state.unflushed.retain(|change| !matches!(change, Change::Filled(filled) if filled == path));
            },
        )
    }

    fn flush_names(&self, directory: &Path) -> io::Result<()> {
        self.call(
            "flush",
            directory,
            || System.flush_names(directory),
            |state| {
                let mut index = 0;
                while index < state.unflushed.len() {
                    if state.unflushed[index].directory() != Some(directory) {
                        index += 1;
                        continue;
                    }
                    if let Change::Renamed { from, to, .. } = state.unflushed.remove(index) {
                        state.unflushed[..index].iter_mut().for_each(|earlier| earlier.moved(&from, &to));
                    }
                }
            },
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let replaced = if to.is_file() { Some(self.bury(to)?) } else { None };
        self.call(
            "rename",
            from,
            || System.rename(from, to),
            |state| {
                state.unflushed.push(Change::Renamed { from: from.to_owned(), to: to.to_owned(), replaced });
            },
        )
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let copy = self.bury(path)?;
        self.call(
            "remove",
            path,
            || System.remove_file(path),
            |state| {
                state.unflushed.push(Change::RemovedFile { path: path.to_owned(), copy });
            },
        )
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.call(
            "remove",
            path,
            || System.remove_dir(path),
            |state| {
                state.unflushed.push(Change::RemovedDir(path.to_owned()));
            },
        )
    }
}
