//! A property that does not hold, and what asks for one.

use std::any::Any;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the property.
    pub check: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    /// An assertion of the product that failed.
    #[must_use]
    pub fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self { check: "an assertion of the product", what: text.unwrap_or("a panic").to_owned() }
    }
}

/// `Err` with a [`Violation`] unless `condition` holds.
macro_rules! check {
    ($name:literal, $condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::record::violation::Violation { check: $name, what: format!($($what)+) });
        }
    };
}
pub(crate) use check;
