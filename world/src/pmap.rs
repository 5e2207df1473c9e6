//! A map from 64-bit keys whose clone is one pointer: what makes a world a value.
//!
//! Writers change their clone and readers keep theirs; both share every part that did not change. It is a trie over
//! the *mixed* key (a bijection, so that ids chosen by hand still spread), three bits a level, with small sorted
//! leaves. A change copies one leaf and a path of 8-way branches, or nothing where the clone is the only owner, as
//! when a whole shard is loaded. Iteration is in the order of the mixed keys: stable, so that pages and the fixed
//! partitions of a snapshot are ranges of it.

use std::marker::PhantomData;
use std::sync::Arc;

const LEVEL_BITS: u32 = 3;
const FANOUT: usize = 1 << LEVEL_BITS;
/// A leaf is copied on its first change after a clone, so it must be small: 32 entries of 16 bytes are 512 bytes.
const LEAF_MAX: usize = 32;

/// A key of a [`PMap`]: 64 bits that name one thing.
pub trait Key: Copy {
    fn bits(self) -> u64;
    fn from_bits(bits: u64) -> Self;
}

impl Key for u64 {
    fn bits(self) -> u64 {
        self
    }
    fn from_bits(bits: u64) -> u64 {
        bits
    }
}

macro_rules! id_keys {
    ($($id:ty),*) => {$(
        impl Key for $id {
            fn bits(self) -> u64 {
                self.get()
            }
            fn from_bits(bits: u64) -> Self {
                <$id>::new(bits)
            }
        }
    )*};
}

id_keys!(crate::AppId, crate::AudienceId, crate::DeviceId, crate::GroupId, crate::MessageId);

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub(crate) const fn mix(key: u64) -> u64 {
    let mut x = key;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The inverse of [`mix`].
const fn unmix(mixed: u64) -> u64 {
    let mut x = mixed;
    x = (x ^ (x >> 31) ^ (x >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    x = (x ^ (x >> 27) ^ (x >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    x ^ (x >> 30) ^ (x >> 60)
}

#[derive(Clone, Debug)]
enum Node<V> {
    /// Sorted by mixed key.
    Leaf(Arc<Vec<(u64, V)>>),
    Branch(Arc<[Node<V>; FANOUT]>),
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct PMap<K, V> {
    root: Node<V>,
    len: usize,
    key: PhantomData<fn(K) -> K>,
}

impl<K: Key, V: Clone> Default for PMap<K, V> {
    fn default() -> Self {
        PMap::new()
    }
}

const fn child_of(mixed: u64, level: u32) -> usize {
    ((mixed >> (64 - LEVEL_BITS * (level + 1))) & (FANOUT as u64 - 1)) as usize
}

/// The deepest level whose three bits still exist; keys that agree in 63 bits stay in one leaf.
const LEVEL_MAX: u32 = 64 / LEVEL_BITS - 1;

impl<K: Key, V: Clone> PMap<K, V> {
    pub fn new() -> PMap<K, V> {
        PMap { root: Node::Leaf(Arc::default()), len: 0, key: PhantomData }
    }

    /// The map of these entries, the last of those with one key. Many times faster than to insert them one by one:
    /// they are sorted once and each node is made once.
    pub fn from_entries(entries: Vec<(K, V)>) -> PMap<K, V> {
        let mut mixed: Vec<(u64, V)> =
            entries.into_iter().map(|(key, value)| (mix(key.bits()), value)).collect();
        mixed.sort_by_key(|(mixed, _)| *mixed);
        mixed.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        let len = mixed.len();
        PMap { root: build(&mut mixed.into_iter(), len, 0), len, key: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, key: K) -> Option<&V> {
        let mixed = mix(key.bits());
        let mut node = &self.root;
        let mut level = 0;
        loop {
            match node {
                Node::Branch(children) => {
                    node = &children[child_of(mixed, level)];
                    level += 1;
                }
                Node::Leaf(entries) => {
                    let at = entries.binary_search_by_key(&mixed, |(k, _)| *k).ok()?;
                    return Some(&entries[at].1);
                }
            }
        }
    }

    /// The value to change in place; copies the path to it if a clone shares it.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.get(key)?;
        let mixed = mix(key.bits());
        let mut node = &mut self.root;
        let mut level = 0;
        loop {
            match node {
                Node::Branch(children) => {
                    node = &mut Arc::make_mut(children)[child_of(mixed, level)];
                    level += 1;
                }
                Node::Leaf(entries) => {
                    let entries = Arc::make_mut(entries);
                    let at = entries.binary_search_by_key(&mixed, |(k, _)| *k).ok()?;
                    return Some(&mut entries[at].1);
                }
            }
        }
    }

    /// Returns the value that stood there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = insert(&mut self.root, 0, mix(key.bits()), value);
        self.len += usize::from(before.is_none());
        before
    }

    pub fn remove(&mut self, key: K) -> Option<V> {
        self.get(key)?;
        let removed = remove(&mut self.root, 0, mix(key.bits()));
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// In the order of the mixed keys.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.walk(0).map(|(mixed, value)| (K::from_bits(unmix(mixed)), value))
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.walk(0).map(|(_, value)| value)
    }

    /// What follows `after` in the order of iteration, whether or not `after` is there.
    pub fn iter_after(&self, after: Option<K>) -> impl Iterator<Item = (K, &V)> {
        let from = after.map(|key| mix(key.bits()).checked_add(1));
        // `None` inside means that `after` is the last key there can be.
        let walk = match from {
            Some(None) => None,
            Some(Some(from)) => Some(self.walk(from)),
            None => Some(self.walk(0)),
        };
        walk.into_iter().flatten().map(|(mixed, value)| (K::from_bits(unmix(mixed)), value))
    }

    /// The values whose mixed keys begin with the `bits` bits of `prefix`.
    pub(crate) fn prefixed(&self, prefix: u64, bits: u32) -> impl Iterator<Item = (K, &V)> {
        let from = prefix << (64 - bits);
        let last = from | (u64::MAX >> bits);
        self.walk(from)
            .take_while(move |(mixed, _)| *mixed <= last)
            .map(|(mixed, value)| (K::from_bits(unmix(mixed)), value))
    }

    fn walk(&self, from: u64) -> Walk<'_, V> {
        let mut walk = Walk { stack: Vec::new(), leaf: [].iter() };
        let mut node = &self.root;
        let mut level = 0;
        loop {
            match node {
                Node::Branch(children) => {
                    let at = child_of(from, level);
                    walk.stack.push(children[at + 1..].iter());
                    node = &children[at];
                    level += 1;
                }
                Node::Leaf(entries) => {
                    walk.leaf = entries[entries.partition_point(|(k, _)| *k < from)..].iter();
                    return walk;
                }
            }
        }
    }
}

struct Walk<'a, V> {
    stack: Vec<std::slice::Iter<'a, Node<V>>>,
    leaf: std::slice::Iter<'a, (u64, V)>,
}

impl<'a, V> Iterator for Walk<'a, V> {
    type Item = (u64, &'a V);

    fn next(&mut self) -> Option<(u64, &'a V)> {
        loop {
            if let Some((mixed, value)) = self.leaf.next() {
                return Some((*mixed, value));
            }
            match self.stack.last_mut()?.next() {
                None => {
                    self.stack.pop();
                }
                Some(Node::Leaf(entries)) => self.leaf = entries.iter(),
                Some(Node::Branch(children)) => self.stack.push(children.iter()),
            }
        }
    }
}

fn insert<V: Clone>(node: &mut Node<V>, level: u32, mixed: u64, value: V) -> Option<V> {
    let entries = match node {
        Node::Branch(children) => {
            let child = &mut Arc::make_mut(children)[child_of(mixed, level)];
            return insert(child, level + 1, mixed, value);
        }
        Node::Leaf(entries) => entries,
    };
    match entries.binary_search_by_key(&mixed, |(k, _)| *k) {
        Ok(at) => Some(std::mem::replace(&mut Arc::make_mut(entries)[at].1, value)),
        Err(at) if entries.len() < LEAF_MAX || level > LEVEL_MAX => {
            if let Some(own) = Arc::get_mut(entries) {
                own.insert(at, (mixed, value));
            } else {
                let mut copy = Vec::with_capacity(entries.len() + 1);
                copy.extend_from_slice(&entries[..at]);
                copy.push((mixed, value));
                copy.extend_from_slice(&entries[at..]);
                *entries = Arc::new(copy);
            }
            None
        }
        Err(_) => {
            let mut parts: [Vec<(u64, V)>; FANOUT] = std::array::from_fn(|_| Vec::new());
            for (k, v) in entries.iter() {
                parts[child_of(*k, level)].push((*k, v.clone()));
            }
            *node = Node::Branch(Arc::new(parts.map(|part| Node::Leaf(Arc::new(part)))));
            insert(node, level, mixed, value)
        }
    }
}

/// The node of the next `len` entries, which are sorted and agree in the bits above `level`.
fn build<V>(entries: &mut std::vec::IntoIter<(u64, V)>, len: usize, level: u32) -> Node<V> {
    if len <= LEAF_MAX || level > LEVEL_MAX {
        return Node::Leaf(Arc::new(entries.by_ref().take(len).collect()));
    }
    let mut left = len;
    Node::Branch(Arc::new(std::array::from_fn(|child| {
        let rest = &entries.as_slice()[..left];
        let own = rest.partition_point(|(mixed, _)| child_of(*mixed, level) <= child);
        left -= own;
        build(entries, own, level + 1)
    })))
}

fn remove<V: Clone>(node: &mut Node<V>, level: u32, mixed: u64) -> Option<V> {
    match node {
        Node::Leaf(entries) => {
            let at = entries.binary_search_by_key(&mixed, |(k, _)| *k).ok()?;
            Some(Arc::make_mut(entries).remove(at).1)
        }
        Node::Branch(children) => {
            let children = Arc::make_mut(children);
            let removed = remove(&mut children[child_of(mixed, level)], level + 1, mixed);
            if let Some(merged) = merged(children) {
                *node = Node::Leaf(Arc::new(merged));
            }
            removed
        }
    }
}

/// The entries of a branch that has become small enough to be a leaf, well below [`LEAF_MAX`] so that a key that
/// comes and goes does not split and merge each time.
fn merged<V: Clone>(children: &[Node<V>; FANOUT]) -> Option<Vec<(u64, V)>> {
    let mut len = 0;
    for child in children {
        match child {
            Node::Leaf(entries) => len += entries.len(),
            Node::Branch(_) => return None,
        }
        if len > LEAF_MAX / 2 {
            return None;
        }
    }
    let mut all = Vec::with_capacity(len);
    for child in children {
        if let Node::Leaf(entries) = child {
            all.extend_from_slice(entries);
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// SplitMix64 as a generator of test operations.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(*state)
    }

    #[test]
    fn mixing_is_a_bijection() {
        let mut state = 1;
        for _ in 0..10_000 {
            let key = next(&mut state);
            assert_eq!(unmix(mix(key)), key);
        }
        for key in [0, 1, u64::MAX] {
            assert_eq!(unmix(mix(key)), key);
        }
    }

    #[test]
    fn behaves_like_a_plain_map_and_old_clones_never_change() {
        for seed in 0..40 {
            let mut state = seed;
            let mut map: PMap<u64, u64> = PMap::new();
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            let mut old: Vec<(PMap<u64, u64>, BTreeMap<u64, u64>)> = Vec::new();
            // Few keys make removals hit; many make the trie deep.
            let keys = if seed % 2 == 0 { 200 } else { 100_000 };
            for step in 0..3_000 {
                let key = next(&mut state) % keys;
                match next(&mut state) % 10 {
                    0..6 => {
                        assert_eq!(map.insert(key, step), model.insert(key, step), "seed {seed}")
                    }
                    6..9 => assert_eq!(map.remove(key), model.remove(&key), "seed {seed}"),
                    _ => {
                        if let Some(value) = map.get_mut(key) {
                            *value += 1;
                            *model.get_mut(&key).expect("in both") += 1;
                        }
                        if step % 50 == 0 {
                            old.push((map.clone(), model.clone()));
                        }
                    }
                }
                assert_eq!(map.get(key), model.get(&key), "seed {seed}");
            }
            old.push((map, model));
            for (map, model) in old {
                assert_eq!(map.len(), model.len());
                let all: BTreeMap<u64, u64> = map.iter().map(|(k, v)| (k, *v)).collect();
                assert_eq!(all, model, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_map_made_at_once_is_the_one_made_step_by_step_and_can_be_changed() {
        for (seed, count, keys) in [(0, 0, 1), (1, 1, 1), (2, 33, 1_000), (3, 20_000, 5_000)] {
            let mut state = seed;
            let entries: Vec<(u64, u64)> =
                (0..count).map(|n| (next(&mut state) % keys, n)).collect();
            let mut steps: PMap<u64, u64> = PMap::new();
            for (key, value) in &entries {
                steps.insert(*key, *value);
            }
            let mut whole = PMap::from_entries(entries);
            assert_eq!(whole.len(), steps.len());
            assert!(whole.iter().eq(steps.iter()), "{count} entries");
            for n in 0..2_000 {
                let key = next(&mut state) % keys;
                if n % 2 == 0 {
                    assert_eq!(whole.insert(key, n), steps.insert(key, n));
                } else {
                    assert_eq!(whole.remove(key), steps.remove(key));
                }
                assert_eq!(whole.get(key), steps.get(key));
            }
            assert!(whole.iter().eq(steps.iter()), "{count} entries");
        }
    }

    #[test]
    fn pages_and_partitions_cover_everything_once() {
        let mut map: PMap<u64, u64> = PMap::new();
        for key in 0..10_000 {
            map.insert(key, key);
        }
        let mut paged = Vec::new();
        let mut after = None;
        loop {
            let page: Vec<u64> = map.iter_after(after).take(7).map(|(k, _)| k).collect();
            let Some(last) = page.last() else { break };
            after = Some(*last);
            paged.extend(page);
        }
        let whole: Vec<u64> = map.iter().map(|(k, _)| k).collect();
        assert_eq!(paged, whole);
        let parts: Vec<u64> = (0..16).flat_map(|p| map.prefixed(p, 4).map(|(k, _)| k)).collect();
        assert_eq!(parts, whole);
        assert!(map.prefixed(3, 4).all(|(k, _)| mix(k) >> 60 == 3));
    }

    #[test]
    fn a_page_goes_on_after_a_key_that_is_gone_and_ends_after_the_last_there_can_be() {
        let mut map: PMap<u64, u64> = PMap::new();
        let (first, last) = (unmix(0), unmix(u64::MAX));
        for key in (1..501).chain([first, last]) {
            map.insert(key, key);
        }
        let order: Vec<u64> = map.iter().map(|(k, _)| k).collect();
        assert_eq!((order[0], order[501]), (first, last));
        for (at, key) in order.iter().enumerate() {
            assert!(map.remove(*key).is_some());
            let rest: Vec<u64> = map.iter_after(Some(*key)).map(|(k, _)| k).collect();
            assert_eq!(rest, order[at + 1..]);
        }
        assert!(map.is_empty());
    }

    #[test]
    fn keys_that_agree_in_their_first_bits_still_fit() {
        let mut map: PMap<u64, u64> = PMap::new();
        let alike = |k: u64| unmix((0xabcd_ef01_2345 << 16) | k);
        for k in 0..1_000 {
            map.insert(alike(k), k);
        }
        assert!((0..1_000).all(|k| map.get(alike(k)) == Some(&k)));
        for k in 0..1_000 {
            assert_eq!(map.remove(alike(k)), Some(k));
        }
        assert!(map.is_empty() && map.iter().next().is_none());
    }
}
