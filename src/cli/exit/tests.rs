//! What failures say.

use crate::cli::exit::in_own_words;

#[test]
fn a_command_does_not_name_what_only_http_can_do() {
    for (told, shown) in [
        (
            "start them again; force=true does it all the same",
            "start them again; --force does it all the same",
        ),
        (
            "h:1: it is not known whether the write was committed; read before writing again, or send it again \
             with the same Idempotency-Key (outcome-unknown)",
            "h:1: it is not known whether the write was committed (outcome-unknown)",
        ),
        ("the key does not exist", "the key does not exist"),
    ] {
        assert_eq!(in_own_words(told.to_owned()), shown);
    }
}
