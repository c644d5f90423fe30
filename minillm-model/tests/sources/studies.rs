//! docs/studies/README.md says of each study what its results say.

use crate::root;

#[test]
fn runs_and_minutes_are_those_of_the_results() {
    let folder = root().join("docs/studies");
    let index = fs_err::read_to_string(folder.join("README.md")).unwrap();
    let mut count = 0;
    for entry in fs_err::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let name = entry.file_name().unwrap().to_str().unwrap();
        let results: serde_json::Value =
            serde_json::from_slice(&fs_err::read(entry.join("results.json")).unwrap()).unwrap();
        let runs = results["runs"].as_array().unwrap();
        let minutes = runs.iter().map(|run| run["seconds"].as_f64().unwrap()).sum::<f64>() / 60.0;
        let row = index.lines().find(|line| line.starts_with(&format!("| [{name}]")));
        let row = row.unwrap_or_else(|| panic!("{name} has no row"));
        let end = format!("| {} | {minutes:.1} |", runs.len());
        assert!(row.ends_with(&end), "{row}\nends with `{end}` in the results");
        count += 1;
    }
    assert_eq!(count, 7);
}
