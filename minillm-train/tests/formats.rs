//! Checkpoints of every format that was ever written stay loadable, and go on as they would have gone on then.
//!
//! `checkpoints/format-N/` is a run of 8 steps of `run.toml` that lost all but the checkpoint after step 4, and its text. A change
//! that breaks this test needs a new number in `checkpoint.rs`, code that reads the old one, and a new folder beside it:
//!
//! ```sh
//! cd minillm-train/tests/checkpoints/format-N
//! cargo run --release -p minillm-train -- train run.toml --out run --device flex
//! rm -r run/checkpoint-000008 run/report.html run/tensorboard run/best.json run/.lock
//! ```

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Bench, files, root};

#[test]
fn old_checkpoints_go_on() {
    let mut count = 0;
    for entry in fs_err::read_dir(root().join("minillm-train/tests/checkpoints")).unwrap() {
        let folder = entry.unwrap().path();
        let bench = Bench::new();
        for (name, content) in files(&folder) {
            let path = bench.path().join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, content).unwrap();
        }
        let expected = bench.losses("run");
        assert_eq!(expected.len(), 8, "{}", folder.display());
        bench.run(&["train", "run.toml", "--out", "run", "--device", "flex", "--resume"]);
        for (step, (got, expected)) in bench.losses("run").iter().zip(&expected).enumerate() {
            // Nats; the first four are the old file's, the others were computed now, perhaps with other kernels or threads.
            assert!((got - expected).abs() < 1e-4, "{}, step {}: {got}, {expected}", folder.display(), step + 1);
        }
        assert_eq!(bench.newest_step("run"), 8);
        count += 1;
    }
    assert!(count > 0);
}
