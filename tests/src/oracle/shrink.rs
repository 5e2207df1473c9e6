//! Smaller expressions and smaller worlds that still show a disagreement.

use carillon_expr::Value;
use carillon_world::Millis;

use super::tree::{Right, Tree};
use super::world::{Device, World};

/// What may stand for a tree, the smallest first.
pub(super) fn smaller(tree: &Tree, world: &World) -> Vec<Tree> {
    let mut out = Vec::new();
    match tree {
        Tree::Not(inner) => {
            out.push((**inner).clone());
            out.extend(smaller(inner, world).into_iter().map(|kid| Tree::Not(Box::new(kid))));
        }
        Tree::And(kids) | Tree::Or(kids) => {
            let chain = |kids: Vec<Tree>| match tree {
                Tree::And(_) => Tree::And(kids),
                _ => Tree::Or(kids),
            };
            // Of a long chain halves and quarters, as long as that goes.
            let mut pieces = 2;
            while kids.len() > 8 && pieces <= 8 {
                out.extend(
                    kids.chunks(kids.len().div_ceil(pieces)).map(|part| chain(part.to_vec())),
                );
                pieces *= 2;
            }
            out.extend(kids.iter().take(64).cloned());
            if kids.len() > 1 {
                out.extend(without_one(kids).map(chain));
            }
            for (at, kid) in kids.iter().enumerate().take(64) {
                for kid in smaller(kid, world) {
                    let mut kids = kids.clone();
                    kids[at] = kid;
                    out.push(chain(kids));
                }
            }
        }
        Tree::Audience(index) => out.push(world.audiences[*index].clone()),
        Tree::Devices(ids) if ids.len() > 1 => out.extend(without_one(ids).map(Tree::Devices)),
        Tree::In(what, negated, fold, values) => {
            if *negated {
                out.push(Tree::In(*what, false, *fold, values.clone()));
            }
            if *fold {
                out.push(Tree::In(*what, *negated, false, values.clone()));
            }
            if values.len() > 1 {
                let fewer = without_one(values);
                out.extend(fewer.map(|values| Tree::In(*what, *negated, *fold, values)));
            }
            for (at, value) in values.iter().enumerate().take(8) {
                for value in simpler(value) {
                    let mut values = values.clone();
                    values[at] = value;
                    out.push(Tree::In(*what, *negated, *fold, values));
                }
            }
        }
        Tree::Entries(operator, negated, entries) => {
            if *negated {
                out.push(Tree::Entries(operator, false, entries.clone()));
            }
            if entries.len() > 1 {
                out.extend(
                    without_one(entries).map(|left| Tree::Entries(operator, *negated, left)),
                );
            }
        }
        Tree::Text(what, operator, negated, fold, piece) => {
            if *negated {
                out.push(Tree::Text(*what, operator, false, *fold, piece.clone()));
            }
            if *fold {
                out.push(Tree::Text(*what, operator, *negated, false, piece.clone()));
            }
            let pieces = shorter(piece).into_iter();
            out.extend(pieces.map(|piece| Tree::Text(*what, operator, *negated, *fold, piece)));
        }
        Tree::Alike(what, symbol, word) => {
            out.extend(shorter(word).into_iter().map(|word| Tree::Alike(*what, symbol, word)));
        }
        Tree::Compare(what, symbol, Right::Value(value)) => {
            let values = simpler(value).into_iter();
            out.extend(values.map(|value| Tree::Compare(*what, symbol, Right::Value(value))));
        }
        Tree::Compare(what, symbol, Right::Now(n, unit)) if *n != 0 => {
            out.push(Tree::Compare(*what, symbol, Right::Now(0, *unit)));
        }
        Tree::Between(what, true, low, high) => {
            out.push(Tree::Between(*what, false, low.clone(), high.clone()));
        }
        Tree::Within(what, true, ahead, n, unit) => {
            out.push(Tree::Within(*what, false, *ahead, *n, *unit));
        }
        Tree::LocalBetween(true, low, high) => out.push(Tree::LocalBetween(false, *low, *high)),
        Tree::LocalDay(negated, days) if days.len() > 1 => {
            out.extend(without_one(days).map(|days| Tree::LocalDay(*negated, days)));
        }
        _ => {}
    }
    out
}

fn without_one<T: Clone>(of: &[T]) -> impl Iterator<Item = Vec<T>> + '_ {
    (0..of.len().min(64)).map(|at| {
        let mut fewer = of.to_vec();
        fewer.remove(at);
        fewer
    })
}

fn shorter(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    if letters.is_empty() {
        return Vec::new();
    }
    let half = letters.len() / 2;
    let mut out: Vec<String> = Vec::new();
    if half > 1 {
        out.extend([letters[..half].iter().collect(), letters[half..].iter().collect()]);
    }
    out.extend(without_one(&letters).map(|fewer| fewer.into_iter().collect()));
    out
}

fn simpler(value: &Value) -> Vec<Value> {
    match value {
        Value::String(text) => {
            shorter(text).into_iter().map(|text| Value::String(text.into())).collect()
        }
        _ => Vec::new(),
    }
}

/// Devices with one thing less.
pub(super) fn poorer(device: &Device) -> Vec<Device> {
    let mut out = Vec::new();
    let mut with = |change: &dyn Fn(&mut Device)| {
        let mut poorer = device.clone();
        change(&mut poorer);
        if poorer != *device {
            out.push(poorer);
        }
    };
    with(&|device| device.row.user = None);
    with(&|device| device.row.last_seen = Millis::ZERO);
    for at in 0..device.row.attributes.len() {
        with(&|device| {
            let mut fewer = device.row.attributes.to_vec();
            fewer.remove(at);
            device.row.attributes = fewer.into();
        });
    }
    for at in 0..device.row.groups.len() {
        with(&|device| {
            let mut fewer = device.row.groups.to_vec();
            fewer.remove(at);
            device.row.groups = fewer.into();
        });
    }
    for (at, (_, value)) in device.row.attributes.iter().enumerate() {
        for value in simpler(value) {
            with(&|device| device.row.attributes[at].1 = value.clone());
        }
    }
    out
}
