//! An app's groups by name. An import looks up several names a line, so a name leads to its row in one walk.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::pmap::PMap;
use crate::usage;
use crate::{GroupId, GroupRow};

/// By the hash of the name; rows whose names share a hash stand together.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupNames(PMap<u64, Rows>);

#[derive(Clone, Debug)]
enum Rows {
    One(Arc<GroupRow>),
    /// At least two.
    Many(Arc<[Arc<GroupRow>]>),
}

impl Rows {
    fn as_slice(&self) -> &[Arc<GroupRow>] {
        match self {
            Rows::One(row) => std::slice::from_ref(row),
            Rows::Many(rows) => rows,
        }
    }
}

/// What a group adds to the map.
pub(crate) const ENTRY_BYTES: u64 = usage::trie_entry(size_of::<Rows>());

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

impl GroupNames {
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<GroupRow>> {
        self.0.get(hash(name))?.as_slice().iter().find(|row| &*row.name == name)
    }

    /// The group is not there yet.
    pub(crate) fn add(&mut self, row: Arc<GroupRow>) {
        self.add_by(hash(&row.name), row);
    }

    pub(crate) fn remove(&mut self, row: &GroupRow) {
        self.remove_by(hash(&row.name), row.id);
    }

    fn add_by(&mut self, hash: u64, row: Arc<GroupRow>) {
        let rows = match self.0.get(hash) {
            None => Rows::One(row),
            Some(rows) => Rows::Many(rows.as_slice().iter().cloned().chain([row]).collect()),
        };
        self.0.insert(hash, rows);
    }

    fn remove_by(&mut self, hash: u64, id: GroupId) {
        let rows = self.0.get(hash).map_or(&[][..], Rows::as_slice);
        let left: Vec<_> = rows.iter().filter(|row| row.id != id).cloned().collect();
        match <[_; 1]>::try_from(left) {
            Ok([row]) => drop(self.0.insert(hash, Rows::One(row))),
            Err(none) if none.is_empty() => drop(self.0.remove(hash)),
            Err(many) => drop(self.0.insert(hash, Rows::Many(many.into()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AppId, SetBy};

    fn row(id: u64) -> Arc<GroupRow> {
        let (app, name) = (AppId::new(1), format!("group-{id}").into());
        Arc::new(GroupRow { id: GroupId::new(id), app, name, set_by: SetBy::Server })
    }

    #[test]
    fn names_that_share_a_hash_are_told_apart() {
        let mut names = GroupNames::default();
        let held = |names: &GroupNames| -> Vec<u64> {
            let rows = names.0.get(7).map_or(&[][..], Rows::as_slice);
            rows.iter().map(|row| row.id.get()).collect()
        };
        for id in 1..=3 {
            names.add_by(7, row(id));
        }
        assert_eq!(held(&names), [1, 2, 3]);
        let before = names.clone();
        names.remove_by(7, GroupId::new(2));
        assert_eq!((held(&names), held(&before)), (vec![1, 3], vec![1, 2, 3]));
        for id in [3, 9] {
            names.remove_by(7, GroupId::new(id));
        }
        assert_eq!(held(&names), [1]);
        names.remove_by(7, GroupId::new(1));
        assert_eq!(names.0.len(), 0, "nothing is kept of what is gone");
    }

    #[test]
    fn a_name_leads_to_its_row_until_it_is_removed() {
        let mut names = GroupNames::default();
        (1..=100).for_each(|id| names.add(row(id)));
        assert_eq!(names.find("group-42").map(|row| row.id.get()), Some(42));
        names.remove(&row(42));
        assert_eq!(names.find("group-42"), None);
        assert_eq!(names.find("group-43").map(|row| row.id.get()), Some(43));
    }
}
