//! The tests there are, by name.

use std::collections::BTreeSet;
use std::path::Path;

/// The names of all test functions below a directory, after those of the modules they are in: marked as tests, or listed in a
/// `tests![…]` of the root tests, whose runner calls them the same.
pub(super) fn test_names(folder: &Path, module: &str, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let module = match path.file_stem().unwrap().to_str().unwrap() {
            "mod" => module.to_owned(),
            name => format!("{module}{name}::"),
        };
        if path.is_dir() {
            test_names(&path, &module, names);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let marked = text.split("#[test]").skip(1);
            let function = |after: &str| Some(after.split_once("fn ")?.1.split('(').next()?.to_owned());
            let mut found: Vec<String> = marked.filter_map(function).collect();
            for list in text.split("tests![").skip(1) {
                let list = list.split(']').next().unwrap();
                // Behind the name some say where they run and how long they may: `name in guest: 300`.
                let name = |entry: &str| {
                    entry
                        .split([':', ' ', '\n'])
                        .find(|word| !word.is_empty())
                        .map(str::to_owned)
                };
                found.extend(list.split(',').filter_map(name));
            }
            names.extend(found.into_iter().map(|name| format!("{module}{name}")));
        }
    }
}
