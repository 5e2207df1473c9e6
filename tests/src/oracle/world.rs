//! One app with its devices and audiences, in every form in which the uses of an expression ask for it.

use std::borrow::Cow;
use std::collections::HashMap;

use carillon_expr::{
    AttributeId, AudienceId, Columns, Context, Expression, GroupId, Limits, Profile, RoaringBitmap,
    Schema, Time, Type, Value,
};
use carillon_world::DeviceRow;

use super::tree::{
    ATTRIBUTES, AUDIENCES, GROUPS, Tree, attribute_id, audience_id, group_id, write,
};

/// Chains of thousands are long when every name is written out.
pub(super) const LIMITS: Limits =
    Limits { bytes_max: 1 << 20, nodes_max: 1 << 16, depth_max: 400, audience_depth_max: 16 };

/// Rows of the columns are spread over several of a bitmap's containers, with gaps.
const ROW_STEP: u32 = 4_099;

/// A device as the edges hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub row: DeviceRow,
}

impl Profile for Device {
    fn attribute(&self, id: AttributeId) -> Option<&Value> {
        self.row.attribute(id)
    }

    fn in_group(&self, id: GroupId) -> bool {
        self.row.in_group(id)
    }

    fn device_id(&self) -> Option<u64> {
        self.row.device_id()
    }

    fn user(&self) -> Option<&str> {
        Profile::user(&self.row)
    }

    fn last_seen(&self) -> Option<Time> {
        self.row.last_seen()
    }
}

/// Expressions are read against it.
#[derive(Clone, Debug)]
pub(super) struct World {
    /// Of the generator that made it.
    pub(super) seed: u64,
    /// The committed clock.
    pub(super) now: Time,
    /// The message that is addressed.
    pub(super) message: u64,
    pub(super) devices: Vec<Device>,
    /// What the audiences say, in the order of [`AUDIENCES`].
    pub(super) audiences: Vec<Tree>,
    parsed: Vec<Expression>,
}

impl World {
    /// A world whose audiences are still to be added.
    pub(super) fn new(seed: u64, now: Time, message: u64, devices: Vec<Device>) -> World {
        World { seed, now, message, devices, audiences: Vec::new(), parsed: Vec::new() }
    }

    /// # Panics
    /// If the audience cannot be read: it was made to be right.
    pub(super) fn add_audience(&mut self, tree: Tree) {
        let (source, id) = (write(&tree), audience_id(self.audiences.len()));
        let read = Expression::parse_audience(id, &source, self, &LIMITS);
        let read = read.unwrap_or_else(|faults| panic!("{}", faults.render(&source)));
        self.parsed.push(read);
        self.audiences.push(tree);
    }

    pub(super) fn context(&self) -> Context {
        Context::at(self.now).for_message(self.message)
    }
}

impl Schema for World {
    fn attribute(&self, name: &str) -> Option<(AttributeId, Type)> {
        let index = ATTRIBUTES.iter().position(|(declared, _)| *declared == name)?;
        Some((attribute_id(index), ATTRIBUTES[index].1))
    }

    fn attribute_name(&self, id: AttributeId) -> Option<(&str, Type)> {
        let index = (0..ATTRIBUTES.len()).find(|index| attribute_id(*index) == id)?;
        Some(ATTRIBUTES[index])
    }

    fn group(&self, name: &str) -> Option<GroupId> {
        GROUPS.iter().position(|declared| *declared == name).map(group_id)
    }

    fn group_name(&self, id: GroupId) -> Option<&str> {
        (0..GROUPS.len()).find(|index| group_id(*index) == id).map(|index| GROUPS[index])
    }

    fn visit_attribute_names(&self, visit: &mut dyn FnMut(&str)) {
        ATTRIBUTES.iter().for_each(|(name, _)| visit(name));
    }

    fn visit_group_names(&self, visit: &mut dyn FnMut(&str)) {
        GROUPS.iter().for_each(|name| visit(name));
    }

    fn audience(&self, name: &str) -> Option<AudienceId> {
        let index = AUDIENCES.iter().position(|declared| *declared == name)?;
        (index < self.parsed.len()).then(|| audience_id(index))
    }

    fn audience_name(&self, id: AudienceId) -> Option<&str> {
        let index = (0..self.parsed.len()).find(|index| audience_id(*index) == id)?;
        Some(AUDIENCES[index])
    }

    fn audience_expression(&self, id: AudienceId) -> Option<&Expression> {
        let index = (0..self.parsed.len()).find(|index| audience_id(*index) == id)?;
        Some(&self.parsed[index])
    }
}

/// The devices of a world as sets of rows.
#[derive(Debug)]
pub(super) struct Sets<'a> {
    world: &'a World,
    all: RoaringBitmap,
    none: RoaringBitmap,
    rows: HashMap<u64, u32>,
    groups: HashMap<GroupId, RoaringBitmap>,
    has: HashMap<AttributeId, RoaringBitmap>,
    equals: HashMap<(AttributeId, Value), RoaringBitmap>,
    contains: HashMap<(AttributeId, String), RoaringBitmap>,
    users: HashMap<String, RoaringBitmap>,
}

impl<'a> Sets<'a> {
    pub(super) fn of(world: &'a World) -> Sets<'a> {
        let mut sets = Sets {
            world,
            all: RoaringBitmap::new(),
            none: RoaringBitmap::new(),
            rows: HashMap::new(),
            groups: HashMap::new(),
            has: HashMap::new(),
            equals: HashMap::new(),
            contains: HashMap::new(),
            users: HashMap::new(),
        };
        for (row, device) in (0..).step_by(ROW_STEP as usize).zip(&world.devices) {
            let device = &device.row;
            sets.all.insert(row);
            sets.rows.insert(device.id.get(), row);
            for group in &device.groups {
                sets.groups.entry(*group).or_default().insert(row);
            }
            for (id, value) in &device.attributes {
                sets.has.entry(*id).or_default().insert(row);
                sets.equals.entry((*id, value.clone())).or_default().insert(row);
                if let Value::Set(set) = value {
                    for entry in set.entries() {
                        sets.contains.entry((*id, entry.to_string())).or_default().insert(row);
                    }
                }
            }
            if let Some(user) = &device.user {
                sets.users.entry(user.to_string()).or_default().insert(row);
            }
        }
        sets
    }

    /// Only some of them: each bit of `mask` stands for one column that is kept.
    pub(super) fn kept(&self, mask: u64) -> Kept<'_> {
        Kept { sets: self, mask }
    }

    /// The places in the world's list of the devices in `rows`.
    pub(super) fn devices(rows: &RoaringBitmap) -> impl Iterator<Item = usize> + '_ {
        rows.iter().map(|row| (row / ROW_STEP) as usize)
    }
}

/// A choice of the sets of a world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept<'a> {
    sets: &'a Sets<'a>,
    mask: u64,
}

impl<'a> Kept<'a> {
    fn if_kept(&self, bit: u64, rows: Option<&'a RoaringBitmap>) -> Option<Cow<'a, RoaringBitmap>> {
        let is_kept = self.mask >> (bit % 64) & 1 == 1;
        is_kept.then(|| Cow::Borrowed(rows.unwrap_or(&self.sets.none)))
    }
}

/// Bits: 0 groups, 1 users, then each attribute three times.
impl Columns for Kept<'_> {
    type Device = Device;

    fn all(&self) -> Cow<'_, RoaringBitmap> {
        Cow::Borrowed(&self.sets.all)
    }

    fn device(&self, row: u32) -> Option<&Device> {
        self.sets.world.devices.get((row / ROW_STEP) as usize)
    }

    fn row(&self, device: u64) -> Option<u32> {
        self.sets.rows.get(&device).copied()
    }

    fn group(&self, id: GroupId) -> Option<Cow<'_, RoaringBitmap>> {
        self.if_kept(0, self.sets.groups.get(&id))
    }

    fn has(&self, id: AttributeId) -> Option<Cow<'_, RoaringBitmap>> {
        self.if_kept(2 + (id.get() & 15), self.sets.has.get(&id))
    }

    fn equals(&self, id: AttributeId, value: &Value) -> Option<Cow<'_, RoaringBitmap>> {
        let rows = self.sets.equals.get(&(id, value.clone()));
        self.if_kept(18 + (id.get() & 15), rows)
    }

    fn contains(&self, id: AttributeId, entry: &str) -> Option<Cow<'_, RoaringBitmap>> {
        let rows = self.sets.contains.get(&(id, entry.to_owned()));
        self.if_kept(34 + (id.get() & 15), rows)
    }

    fn user(&self, user: &str) -> Option<Cow<'_, RoaringBitmap>> {
        self.if_kept(1, self.sets.users.get(user))
    }
}
