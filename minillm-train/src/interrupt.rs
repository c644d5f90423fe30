//! Stopping a run from outside: the first signal asks, the second leaves at once.
//!
//! | signal | from | exit code |
//! |---|---|---|
//! | SIGINT | Ctrl-C | 130 |
//! | SIGTERM | `kill`, a batch system, a shutdown | 143 |
//! | SIGHUP | a closed terminal (unless started with `nohup`) | 143 |
//! | SIGBREAK | Ctrl-Break on Windows | 143 |
//!
//! The trainer polls [`Interrupt::requested`] after each step, saves and ends. The codes are 128 + the signal's number,
//! as shells have it. Windows ends a program whose console window is closed at once; then the last checkpoint counts.
//!
//! A signal handler may do next to nothing, so it only stores the signal's number; a thread looks at it 20 times a second
//! and does the rest in ordinary code. The thread answers even while a long step runs.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::error::{Error, Result};

const POLL: Duration = Duration::from_millis(50);
/// What comes this soon after the first signal is the same event: `timeout` signals a process and then its group, and
/// of a closed terminal both shell and system tell.
const SAME_EVENT: Duration = Duration::from_millis(300);

#[cfg(unix)]
const SIGHUP: i32 = signal_hook::consts::SIGHUP;
/// Never arrives: Windows has no such signal.
#[cfg(not(unix))]
const SIGHUP: i32 = 1;

/// What asked the run to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The user, with Ctrl-C.
    Interrupt,
    /// The system or another program.
    Terminate,
}

impl Signal {
    /// The exit code of a program that ended because of it.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }

    fn from_number(number: usize) -> Option<Self> {
        match number {
            0 => None,
            _ if number == SIGINT as usize => Some(Self::Interrupt),
            _ => Some(Self::Terminate),
        }
    }
}

/// Whether the run was asked to stop. Clones share the answer.
#[derive(Clone, Debug)]
pub struct Interrupt {
    /// Number of the first signal; 0 before.
    first: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Catches the signals from now until the program ends. Called once, by the program.
    ///
    /// # Errors
    /// A system that refuses handlers or threads.
    pub fn install() -> Result<Self> {
        let interrupt = Self { first: Arc::default() };
        interrupt.catch().map_err(|source| Error::Io { action: "install", what: "the signal handlers", source })?;
        Ok(interrupt)
    }

    /// Nothing ever asks: for a trainer inside another program.
    pub fn never() -> Self {
        Self { first: Arc::default() }
    }

    /// The signal that asked to stop, if one has.
    pub fn requested(&self) -> Option<Signal> {
        Signal::from_number(self.first.load(Ordering::SeqCst))
    }

    /// Asks to stop as SIGTERM does once `input` ends. A program that starts another and keeps the other's standard input open
    /// takes it along wherever it goes, a kill included.
    ///
    /// # Errors
    /// A system that refuses threads.
    pub fn at_end_of(&self, mut input: impl Read + Send + 'static) -> Result<()> {
        let first = Arc::clone(&self.first);
        let wait = move || {
            let _ = io::copy(&mut input, &mut io::sink()); // however it ends, nobody waits any more
            let _ = first.compare_exchange(0, SIGTERM as usize, Ordering::SeqCst, Ordering::SeqCst);
        };
        let thread = thread::Builder::new().name("end of input".to_owned()).spawn(wait);
        thread.map(drop).map_err(|source| Error::Io { action: "start", what: "a thread", source })
    }

    fn catch(&self) -> io::Result<()> {
        let latest = Arc::new(AtomicUsize::new(0));
        for signal in signals() {
            flag::register_usize(signal, Arc::clone(&latest), signal as usize)?;
        }
        let first = Arc::clone(&self.first);
        thread::Builder::new().name("interrupt".to_owned()).spawn(move || watch(&latest, &first))?;
        Ok(())
    }
}

/// Where the system limits the size of files (`ulimit -f`), it ends a program that writes beyond, unless the program has a
/// handler; then the write is an error that says so.
pub fn report_limits() {
    #[cfg(unix)]
    let _ = flag::register(signal_hook::consts::SIGXFSZ, Arc::default()); // without it, the system's way
}

/// Waits for the first signal and records it, then for the second and ends the program.
fn watch(latest: &AtomicUsize, first: &AtomicUsize) {
    loop {
        thread::sleep(POLL);
        let number = latest.swap(0, Ordering::SeqCst);
        let Some(signal) = Signal::from_number(number) else {
            continue;
        };
        if first.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            tracing::warn!("stopping after this step; a second signal leaves at once, without saving");
            thread::sleep(SAME_EVENT);
            latest.store(0, Ordering::SeqCst);
        } else if number != SIGHUP as usize {
            // A terminal goes only once, however often we are told. `_exit`: no destructor may hold this up.
            low_level::exit(signal.exit_code().into());
        }
    }
}

#[cfg(unix)]
fn signals() -> Vec<i32> {
    if is_hangup_ignored() { vec![SIGINT, SIGTERM] } else { vec![SIGINT, SIGTERM, SIGHUP] }
}

#[cfg(windows)]
fn signals() -> Vec<i32> {
    vec![SIGINT, SIGTERM, signal_hook::consts::SIGBREAK]
}

/// `nohup` starts a program with SIGHUP ignored; a handler would undo that.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    use std::io::IsTerminal;
    let ignored = fs_err::read_to_string("/proc/self/status").ok().and_then(|status| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    match ignored {
        Some(mask) => mask & 1 << (SIGHUP - 1) != 0,
        // Without Linux's /proc: `nohup` also takes the terminal away from stderr, and so does `2> FILE`. A run that
        // is then not saved loses the steps since its last checkpoint; one that stops under `nohup`, the night.
        None => !io::stderr().is_terminal(),
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::time::Instant;

    use super::*;

    const ROLE: &str = "MINILLM_TEST_INTERRUPT";
    const BETWEEN_EVENTS: Duration = Duration::from_millis(600);

    /// Not a test of its own: what the others start as a process, and send signals to.
    #[test]
    fn child() {
        let Ok(role) = std::env::var(ROLE) else { return };
        let interrupt = Interrupt::install().unwrap();
        eprintln!("ready");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(5));
            if let Some(signal) = interrupt.requested()
                && role == "polls"
            {
                low_level::exit(signal.exit_code().into());
            }
        }
    }

    /// Starts `child` through a shell, which `before` prepares.
    fn start(role: &str, before: &str) -> Child {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", &format!("{before} exec \"$0\" --exact \"$1\" --nocapture 2>&1"), &program.to_string_lossy()])
            .arg(format!("{}::child", module_path!().split_once("::").unwrap().1))
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output: BufReader<ChildStdout> = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended too soon");
        }
        // Keeps the pipe from filling up or closing.
        thread::spawn(move || output.read_to_end(&mut Vec::new()));
        child
    }

    fn send(child: &Child, signal: &str) {
        let command = format!("kill -{signal} {}", child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    #[test]
    fn the_first_signal_is_a_request_and_says_which() {
        for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 143)] {
            if signal == "HUP" && !hangup_arrives() {
                continue;
            }
            let mut child = start("polls", "");
            send(&child, signal);
            assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        }
    }

    #[test]
    fn the_second_signal_leaves_at_once() {
        let mut child = start("is stuck", "");
        send(&child, "INT");
        send(&child, "INT"); // the same event
        thread::sleep(BETWEEN_EVENTS);
        assert_eq!(child.try_wait().unwrap(), None);
        send(&child, "TERM");
        assert_eq!(child.wait().unwrap().code(), Some(143));
    }

    /// Not where the tests themselves run under `nohup`, nor where that is guessed from stderr, here a pipe.
    fn hangup_arrives() -> bool {
        cfg!(target_os = "linux") && !is_hangup_ignored()
    }

    #[test]
    fn a_terminal_goes_only_once() {
        if !hangup_arrives() {
            return;
        }
        let mut child = start("is stuck", "");
        for _ in 0..2 {
            send(&child, "HUP");
            thread::sleep(BETWEEN_EVENTS);
        }
        assert_eq!(child.try_wait().unwrap(), None);
        send(&child, "INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }

    #[test]
    fn nohup_is_respected() {
        let mut child = start("polls", "trap '' HUP;");
        send(&child, "HUP");
        thread::sleep(BETWEEN_EVENTS);
        assert_eq!(child.try_wait().unwrap(), None);
        send(&child, "INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
}
