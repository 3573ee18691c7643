//! Numbers of speakers, names and labels in the order of their appearance.

/// The number of an item. A new item gets the next number.
pub(super) fn number<T: PartialEq>(known: &mut Vec<T>, item: T) -> usize {
    known.iter().position(|other| *other == item).unwrap_or_else(|| {
        known.push(item);
        known.len() - 1
    })
}
