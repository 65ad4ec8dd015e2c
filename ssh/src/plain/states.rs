//! The table of states names functions that are there.

use std::path::Path;

#[test]
fn every_function_of_the_table_is_where_it_says() {
    let table = include_str!("../../STATES.md");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut named = 0;
    for name in table.split('`').skip(1).step_by(2) {
        let Some((file, function)) = name.split_once("::") else { continue };
        let text = std::fs::read_to_string(source.join(file)).expect(file);
        let found = ["(", "<"].iter().any(|end| text.contains(&format!("fn {function}{end}")));
        assert!(found, "{file} has no function {function}");
        named += 1;
    }
    assert!(named > 40, "{named}");
}
