//! A text from an address, fetched once and kept in `CACHE/downloads/`.
//!
//! The file is what it was the first time, or it is refused: its SHA-256 is compared with `data.sha256`, or without
//! that field with the hash noted beside it (`NAME.sha256`) on the first use. A file put there by hand will do as well.

use std::path::{Path, PathBuf};

use minillm_infer::text_files::has_known_ending;
use sha2::{Digest, Sha256};

use super::Progress;
use super::config::invalid;
use super::source::{Text, hex};
use crate::error::{Error, Result};

/// The text at `url`, from the cache if it is there.
pub fn text(url: &str, sha256: Option<&str>, cache_dir: &Path, progress: &dyn Progress) -> Result<Text> {
    let path = place(url, sha256, &cache_dir.join("downloads"))?;
    let record = beside(&path);
    let expected = match sha256 {
        Some(sha256) => Some(sha256.to_lowercase()),
        None => recorded(&record)?,
    };
    if !path.exists() {
        fetch(url, &path, expected.as_deref(), progress)?;
    }
    let text = Text::new(std::slice::from_ref(&path), progress)?;
    let found = text.sha256.first().map(|sha256| hex(sha256)).unwrap_or_default();
    match expected {
        Some(expected) if expected != found => Err(Error::Download {
            url: url.into(),
            problem: format!("`{}` has the SHA-256 {found}, not {expected}", path.display()),
            hint: match sha256 {
                Some(_) => "remove that file to download it again".into(),
                None => format!("to accept what is there now, remove `{}`", record.display()),
            },
        }),
        Some(_) => Ok(text),
        None => {
            fs_err::write(&record, format!("{found}\n")).map_err(cannot_write)?;
            tracing::info!("`{url}` has the SHA-256 {found}; set `data.sha256` to it to accept no other");
            Ok(text)
        }
    }
}

/// Where the download is stored: a name of its own for every content or address, ending as the address does, because the
/// ending says what is in it.
fn place(url: &str, sha256: Option<&str>, dir: &Path) -> Result<PathBuf> {
    let without_query = url.split(['?', '#']).next().unwrap_or_default();
    let name: String = (without_query.rsplit('/').next().unwrap_or_default().chars())
        .map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' })
        .collect();
    if !has_known_ending(Path::new(&name)) {
        return Err(invalid(
            "data.url",
            format!("is `{url}`, which does not end in .txt or .jsonl, nor in one of these with .gz or .zst behind"),
            "download the file, give it the right ending, and name it in `data.files`",
        ));
    }
    let key = sha256.map_or_else(|| hex(&Sha256::digest(url)), str::to_lowercase);
    Ok(dir.join(format!("{}-{}", &key[..16], &name[name.len().saturating_sub(80)..])))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    name.into()
}

/// The hash noted on the first use.
fn recorded(record: &Path) -> Result<Option<String>> {
    match fs_err::read_to_string(record) {
        Ok(text) => Ok(Some(text.trim().to_lowercase())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { action: "read", what: "the hash of a download", source }),
    }
}

fn cannot_write(source: std::io::Error) -> Error {
    Error::Io { action: "write", what: "the download in the cache", source }
}

/// Without the feature there is only the way by hand.
#[cfg(not(feature = "download"))]
fn fetch(url: &str, path: &Path, _expected: Option<&str>, _progress: &dyn Progress) -> Result<()> {
    fs_err::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(cannot_write)?;
    Err(Error::Download {
        url: url.into(),
        problem: "this program was built without the feature `download`".into(),
        hint: format!("build it with `--features download`, or put the file at `{}` by hand", path.display()),
    })
}

#[cfg(feature = "download")]
use http::fetch;

#[cfg(feature = "download")]
mod http {
    use std::io::{Read, Write};
    use std::time::Duration;

    use sha2::{Digest, Sha256};

    use super::super::{Progress, watch};
    use super::{Error, Path, Result, cannot_write, hex};

    /// Downloads to a temporary file beside `path`, and renames it if its hash is the `expected` one.
    pub fn fetch(url: &str, path: &Path, expected: Option<&str>, progress: &dyn Progress) -> Result<()> {
        let failed = |problem: String| Error::Download {
            url: url.into(),
            problem,
            hint: format!("check the connection, or put the file at `{}` by hand", path.display()),
        };
        let dir = path.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(dir).map_err(cannot_write)?;

        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_mins(1)))
            .build()
            .new_agent();
        let response = agent.get(url).call().map_err(|error| failed(format!("cannot be downloaded: {error}")))?;
        let body = response.into_body();
        let (name, total) = (path.file_name().unwrap_or_default().to_string_lossy(), body.content_length());

        // Removed when it goes out of scope, unless it is renamed before.
        let mut part = tempfile::Builder::new().suffix(".part").tempfile_in(dir).map_err(cannot_write)?;
        let (mut body, mut hash, mut buffer) = (body.into_reader(), Sha256::new(), vec![0; 1 << 16]);
        watch(progress, &format!("downloading {name}"), total.unwrap_or(0), || {
            loop {
                let n = body.read(&mut buffer).map_err(|error| failed(format!("broke off: {error}")))?;
                if n == 0 {
                    return Ok(());
                }
                hash.update(&buffer[..n]);
                part.write_all(&buffer[..n]).map_err(cannot_write)?;
                progress.advance(n as u64);
            }
        })?;

        let found = hex(&hash.finalize());
        if let Some(expected) = expected
            && found != expected
        {
            return Err(Error::Download {
                url: url.into(),
                problem: format!("what came has the SHA-256 {found}, not {expected}"),
                hint: "the file has changed, or is not the one meant: check the address, and `data.sha256` or, where that \
                       is not set, the file with the recorded hash that is next to the cached text"
                    .into(),
            });
        }
        part.as_file().sync_all().map_err(cannot_write)?;
        part.persist(path).map_err(|error| cannot_write(error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Silent;

    #[test]
    fn names_are_kept_apart_and_harmless() {
        let dir = Path::new("d");
        let name = |url: &str, sha256: Option<&str>| place(url, sha256, dir).map(|path| path.display().to_string());
        let plain = name("https://x.org/a/../b%20c.txt.gz?x=1.jsonl", None).unwrap();
        assert!(plain.ends_with("-b_20c.txt.gz"), "{plain}");
        assert_ne!(plain, name("https://y.org/b%20c.txt.gz", None).unwrap());
        let sha256 = "0123456789ABCDEF".repeat(4);
        let named = Path::new("d").join("0123456789abcdef-a.txt");
        assert_eq!(name("https://x.org/a.txt", Some(&sha256)).unwrap(), named.display().to_string());
        assert_eq!(name("https://x.org/a.zip", None).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_file_put_there_by_hand_is_taken_and_a_changed_one_refused() {
        let cache = tempfile::tempdir().unwrap();
        let url = "http://127.0.0.1:9/text.txt"; // nothing listens there
        let error = text(url, None, cache.path(), &Silent).unwrap_err();
        let path = place(url, None, &cache.path().join("downloads")).unwrap();
        assert!(error.hint().unwrap().contains(&path.display().to_string()), "{error}");
        fs_err::write(&path, "by hand").unwrap();
        assert!(text(url, None, cache.path(), &Silent).is_ok());
        assert!(text(url, None, cache.path(), &Silent).is_ok());
        fs_err::write(&path, "changed").unwrap();
        let error = text(url, None, cache.path(), &Silent).unwrap_err();
        assert!(matches!(error, Error::Download { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()));
    }

    #[cfg(feature = "download")]
    mod over_http {
        use std::io::{BufRead, BufReader, Write};
        use std::net::TcpListener;

        use super::*;

        /// Answers the first requests with these responses, one each; returns the address.
        fn serve(responses: Vec<String>) -> String {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/dir/text.txt?raw=1", listener.local_addr().unwrap());
            std::thread::spawn(move || {
                for response in responses {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
                    while request.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                    stream.write_all(response.as_bytes()).unwrap();
                }
            });
            url
        }

        fn ok(length: usize, body: &str) -> String {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        }

        fn files(cache: &Path) -> Vec<String> {
            let entries = fs_err::read_dir(cache.join("downloads")).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        #[test]
        fn a_file_is_fetched_once_and_its_hash_noted() {
            let cache = tempfile::tempdir().unwrap();
            let url = serve(vec![ok(5, "hello"), ok(5, "other")]);
            let first = text(&url, None, cache.path(), &Silent).unwrap();
            assert_eq!(fs_err::read(first.path()).unwrap(), b"hello");
            assert_eq!(files(cache.path()).len(), 2, "the file and its hash");
            text(&url, None, cache.path(), &Silent).unwrap();
            fs_err::remove_file(first.path()).unwrap();
            let error = text(&url, None, cache.path(), &Silent).unwrap_err();
            assert!(error.to_string().contains("what came has"), "{error}");
            assert_eq!(files(cache.path()).len(), 1, "only the hash");
        }

        #[test]
        fn what_is_not_the_file_is_refused_and_removed() {
            let cache = tempfile::tempdir().unwrap();
            let sha256 = hex(&Sha256::digest("hello"));
            let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into();
            let url = serve(vec![ok(5, "hullo"), ok(9, "hello"), missing, ok(5, "hello")]);
            for problem in ["SHA-256", "broke off", "404"] {
                let error = text(&url, Some(&sha256), cache.path(), &Silent).unwrap_err();
                assert!(error.to_string().contains(problem), "{error}");
                assert_eq!(files(cache.path()).len(), 0);
            }
            assert!(text(&url, Some(&sha256.to_uppercase()), cache.path(), &Silent).is_ok());
        }
    }
}
