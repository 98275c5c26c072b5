use super::*;

#[derive(Debug)]
#[expect(dead_code, reason = "only shown")]
enum Kind {
    Plain,
    Tuple(u8),
    Fields { first: u8 },
}

#[test]
fn a_value_is_counted_by_the_name_of_its_variant() {
    let mut figures = Figures::default();
    for kind in [Kind::Plain, Kind::Tuple(1), Kind::Fields { first: 2 }, Kind::Tuple(3)] {
        figures.count("kind", &kind);
    }
    let all: Vec<_> = figures.iter().collect();
    assert_eq!(all, [("kind Fields", 1), ("kind Plain", 1), ("kind Tuple", 2)]);
}

#[test]
fn a_long_name_is_cut_off() {
    let mut figures = Figures::default();
    figures.count(&"é".repeat(40), &Kind::Plain);
    assert_eq!(figures.iter().map(|(name, _)| name.len()).collect::<Vec<_>>(), [64]);
}
