//! Which conversations share a row. *Best fit*: each goes where it leaves the least room, so that little of a row is padding and no
//! conversation is cut.

use std::collections::BTreeMap;

/// The rows of a batch while they are filled.
struct Rows {
    /// What is in each.
    rows: Vec<Vec<usize>>,
    /// The rows by the room that is left in them.
    by_room: BTreeMap<usize, Vec<usize>>,
}

impl Rows {
    fn new() -> Self {
        Self { rows: Vec::new(), by_room: BTreeMap::new() }
    }

    fn add_empty(&mut self, context: usize) {
        self.by_room.entry(context).or_default().push(self.rows.len());
        self.rows.push(Vec::new());
    }

    /// Puts `item` into the fullest row with room for it; `false` if there is none.
    fn put(&mut self, item: usize, length: usize) -> bool {
        let Some((&room, rows)) = self.by_room.range_mut(length..).next() else { return false };
        let Some(row) = rows.pop() else { return false };
        if rows.is_empty() {
            self.by_room.remove(&room);
        }
        self.rows[row].push(item);
        self.by_room.entry(room - length).or_default().push(row);
        true
    }
}

/// Rows of at most `context` places for items of these lengths, none of them longer: the longest first, as many rows as it takes.
pub fn best_fit(lengths: &[usize], context: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&item| std::cmp::Reverse(lengths[item]));
    let mut rows = Rows::new();
    for item in order {
        if !rows.put(item, lengths[item]) {
            rows.add_empty(context);
            rows.put(item, lengths[item]);
        }
    }
    rows.rows
}

/// Fills `count` rows with items as they come, until one fits nowhere; it is left out.
pub fn best_fit_until_full<T, E>(
    count: usize,
    context: usize,
    mut items: impl Iterator<Item = Result<(T, usize), E>>,
) -> Result<Vec<Vec<T>>, E> {
    let mut rows = Rows::new();
    (0..count).for_each(|_| rows.add_empty(context));
    let mut taken = Vec::new();
    loop {
        let Some((item, length)) = items.next().transpose()? else { break };
        if !rows.put(taken.len(), length) {
            break;
        }
        taken.push(Some(item));
    }
    Ok(rows.rows.into_iter().map(|row| row.into_iter().filter_map(|item| taken[item].take()).collect()).collect())
}
