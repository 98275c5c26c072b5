//! `docs/cli.md`: each command is run, and prints what the page says.

use crate::docs_api::{examples, matches};
use crate::support::{Cluster, Shell};
use std::fs;
use std::path::Path;

#[test]
fn the_commands_of_the_page_print_what_the_page_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let examples = examples(&fs::read_to_string(page).unwrap());
    assert!(examples.len() > 40, "the page has its examples");
    let cluster = Cluster::start(3, &[]);
    let shell = Shell::of(&cluster.nodes);
    let dir = tempfile::tempdir().unwrap();
    let mut code = 0;
    for example in &examples {
        // As in a terminal: `$?` is the code of the command before, and errors are seen too.
        let ran = shell.script(&format!("(exit {code}); {}", example.command), dir.path());
        code = ran.code;
        let mut said = ran.text().to_owned();
        if !said.is_empty() && !said.ends_with('\n') {
            said.push('\n');
        }
        assert!(
            matches(&said, &example.answer),
            "{}\nprints\n{said}\nand not\n{}",
            example.command,
            example.answer
        );
    }
}
