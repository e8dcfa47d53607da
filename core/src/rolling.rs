//! Rolled files: how sinks that write files or objects group records, name the files and know what may be committed.
//!
//! A file holds records of one partition, one path and, where the format wants it, one schema, and is named after the first of them:
//! `<path><topic>+<partition>+<first offset, 20 digits>.<extension>`. It is sealed by size, by count, or when the
//! partition's oldest record that is not yet durable has reached the age; then all files of the partition are sealed
//! together, so that its offset can be committed.
//!
//! Pure: the sink writes the bytes and says [`Rolling::finish`] once a file is durable.
//!
//! **Invariant:** no file is sealed between two records of one offset, of which a step may make several: the rest would
//! begin a second file of the same name, which the first would be taken for. So a file may hold more than its size and
//! count say, by what one record of the log makes. Records of one offset that belong to different groups do begin files
//! of the same name; these differ in content, so that they are told apart by it.
//!
//! **Invariant:** a partition is durable up to the first offset of its unfinished files, and up to everything taken
//! when it has none.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::config::Values;
use crate::lines::{LineFormat, Lines, Nulls};
use crate::sink::{Offsets, SinkRecord, TopicPartition};
use crate::template::{PathTemplate, push_value};
use crate::{Error, Result};

/// What a file costs besides its bytes, for the byte budgets.
const FILE_OVERHEAD: usize = 1024;

/// What the config says about paths, lines and rolls.
#[derive(Clone, Debug)]
pub struct RollSettings {
    /// Path of the files.
    pub path: PathTemplate,
    /// How records become lines.
    pub lines: LineFormat,
    /// A file of this many bytes is sealed.
    pub size: u64,
    /// A file of this many records is sealed; 0 for any number.
    pub count: u64,
    /// The age of the oldest record at which the files of a partition are sealed.
    pub age: Duration,
}

impl RollSettings {
    /// From the keys `nulls`, `fields.origin`, `roll.size`, `roll.count` and `roll.age`.
    pub fn new(path: PathTemplate, values: &Values) -> Result<Self> {
        let nulls = Nulls::parse(values.text("nulls")?)?;
        Ok(Self {
            path,
            lines: LineFormat { nulls, origin: values.boolean("fields.origin")? },
            size: values.size("roll.size")?.0,
            count: u64::try_from(values.int("roll.count")?).unwrap_or(0),
            age: values.duration("roll.age")?,
        })
    }
}

/// Names a file within one [`Rolling`].
pub type FileId = u64;

/// Tells records apart that may not stand in one file, such as those of different schemas.
pub type Group = u64;

/// How records are gathered until the sink takes them.
pub trait Gather {
    /// What is gathered of one file.
    type Buffer: Buffer;

    /// Makes the record ready, which comes next, and says which group it belongs to; `None` leaves it out. An error is a
    /// bad record.
    fn stage(&mut self, record: &mut SinkRecord) -> Result<Option<Group>>;

    /// Adds the record that was staged last; answers with its bytes. On an error, a bad record, nothing is added.
    fn append(&mut self, buffer: &mut Self::Buffer, group: Group, record: &SinkRecord) -> Result<usize>;
}

/// What a [`Gather`] fills. The default holds nothing.
pub trait Buffer: Default {
    /// Memory held, in bytes.
    fn held(&self) -> usize;

    /// Bytes in it.
    fn filled(&self) -> usize;
}

impl Buffer for Vec<u8> {
    fn held(&self) -> usize {
        self.capacity()
    }

    fn filled(&self) -> usize {
        self.len()
    }
}

/// A file that is not durable yet. `B` is what the sink keeps with it, `T` what is gathered of it.
#[derive(Debug)]
pub struct Rolled<B, T = Vec<u8>> {
    /// The partition its records come from.
    pub origin: TopicPartition,
    /// Directory or prefix, ending with `/` or empty.
    pub path: String,
    /// Offset of its first record.
    pub first: i64,
    /// Records in it.
    pub count: u64,
    /// Bytes in it, handed over or not, before any encoding.
    pub bytes: u64,
    /// The group of its records.
    pub group: Group,
    /// No more records are added.
    pub sealed: bool,
    /// To be sealed once the record in hand is whole.
    due: bool,
    /// The sink's own.
    pub body: B,
    buffer: T,
    opened: Instant,
}

impl<B, T: Buffer> Rolled<B, T> {
    /// Its name without the path. `attempt` tells several files of the same first offset apart.
    pub fn name(&self, attempt: Option<&str>, extension: &str) -> String {
        let mut name = prefix(&self.origin);
        name.push_str(&format!("{:020}", self.first));
        if let Some(attempt) = attempt {
            name.push('.');
            name.push_str(attempt);
        }
        name.push('.');
        name.push_str(extension);
        name
    }

    /// Bytes that were not handed over yet.
    pub fn buffered(&self) -> usize {
        self.buffer.filled()
    }

    /// Memory held by them.
    pub fn held(&self) -> usize {
        self.buffer.held()
    }
}

fn prefix(origin: &TopicPartition) -> String {
    let mut name = String::new();
    // The log's topic names are 249 characters at most, none of which is changed; longer ones do not exist.
    if push_value(&mut name, &origin.topic).is_err() {
        name.clear();
        name.push_str(&origin.topic.replace('/', "%2F"));
    }
    name.push_str(&format!("+{}+", origin.partition));
    name
}

/// Whether `name` is one that [`Rolled::name`] gives to files of `origin`.
pub fn is_name_of(name: &str, origin: &TopicPartition, extension: &str) -> bool {
    let Some(rest) = name.strip_prefix(&prefix(origin)) else { return false };
    let Some(rest) = rest.strip_suffix(extension).and_then(|rest| rest.strip_suffix('.')) else {
        return false;
    };
    let (offset, attempt) =
        rest.split_once('.').map_or((rest, None), |(offset, attempt)| (offset, Some(attempt)));
    let attempt =
        attempt.is_none_or(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric()));
    offset.len() == 20 && offset.bytes().all(|b| b.is_ascii_digit()) && attempt
}

/// What became of a record.
#[derive(Debug)]
pub enum Taken {
    /// It stands in this file.
    Written(FileId),
    /// It was taken before, or is left out on purpose.
    Skipped,
    /// It can never be written.
    Refused(Box<SinkRecord>, Error),
}

#[derive(Debug)]
struct Partition {
    origin: TopicPartition,
    /// Offset from which records are new.
    next: i64,
    /// How many records of the offset before `next` were taken; a step may make several of one.
    taken: u64,
    /// How many of them were seen in this call.
    seen: u64,
    /// The files being filled, by path, one of each group.
    filling: HashMap<String, Vec<(Group, FileId)>>,
    /// The entry of `filling` that was used last.
    latest: Option<(String, Group, FileId)>,
}

impl Partition {
    /// Whether a record is to be taken, which then counts as taken.
    fn is_new(&mut self, offset: i64) -> bool {
        if offset >= self.next {
            (self.next, self.taken, self.seen) = (offset + 1, 1, 1);
            return true;
        }
        // Another one made from the same record, unless it was among those taken by an earlier call.
        if offset + 1 < self.next || self.taken == 0 {
            return false;
        }
        self.seen += 1;
        let new = self.seen > self.taken;
        self.taken = self.taken.max(self.seen);
        new
    }
}

/// The files of a task.
#[derive(Debug)]
pub struct Rolling<B, G: Gather = Lines> {
    settings: RollSettings,
    gather: G,
    partitions: Vec<Partition>,
    /// The one used last; batches hold runs of one partition.
    latest: usize,
    files: BTreeMap<FileId, Rolled<B, G::Buffer>>,
    next_id: FileId,
    /// Files that hold records of the one in hand, of whose offset more may follow.
    in_hand: Vec<FileId>,
    buffered: usize,
    unsealed: usize,
    path: String,
}

impl<B: Default> Rolling<B> {
    /// Without partitions; of JSON lines.
    pub fn new(settings: RollSettings) -> Self {
        let lines = Lines::new(settings.lines);
        Self::gathering(settings, lines)
    }
}

impl<B: Default, G: Gather> Rolling<B, G> {
    /// Without partitions.
    pub fn gathering(settings: RollSettings, gather: G) -> Self {
        Self {
            settings,
            gather,
            partitions: Vec::new(),
            latest: 0,
            files: BTreeMap::new(),
            next_id: 0,
            in_hand: Vec::new(),
            buffered: 0,
            unsealed: 0,
            path: String::new(),
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> &RollSettings {
        &self.settings
    }

    /// A partition is assigned; records before `offset` are not new.
    pub fn open(&mut self, origin: TopicPartition, offset: i64) {
        self.partitions.retain(|partition| partition.origin != origin);
        self.partitions.push(Partition {
            origin,
            next: offset,
            taken: 0,
            seen: 0,
            filling: HashMap::new(),
            latest: None,
        });
        self.latest = 0;
    }

    /// A partition goes away; its unfinished files are returned, to be thrown away.
    pub fn close(&mut self, origin: &TopicPartition) -> Vec<Rolled<B, G::Buffer>> {
        self.partitions.retain(|partition| partition.origin != *origin);
        self.latest = 0;
        let ids: Vec<FileId> =
            self.files.iter().filter(|(_, f)| f.origin == *origin).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.finish(id)).collect()
    }

    /// A batch follows, which may be one seen before, wholly or in part. Called at the beginning of every `put`.
    pub fn begin(&mut self) {
        self.partitions.iter_mut().for_each(|partition| partition.seen = 0);
    }

    /// The whole batch was taken: files are sealed that are full, and those of the partitions whose oldest record has
    /// reached the age. Not called for a batch that broke off.
    pub fn end(&mut self, now: Instant) {
        // A record whose batch broke off is whole only when that batch has come again.
        let origin = self.in_hand.iter().find_map(|id| self.files.get(id)).map(|file| &file.origin);
        let partition = self.partitions.iter().find(|partition| Some(&partition.origin) == origin);
        if partition.is_none_or(|partition| partition.seen >= partition.taken) {
            self.release();
        }
        self.seal_due(now);
    }

    /// The record comes next: unless it was made from the one in hand, the files that are full are sealed.
    pub fn next(&mut self, record: &SinkRecord) -> Vec<FileId> {
        let slot = self.partition(record);
        if record.offset >= self.partitions[slot].next { self.release() } else { Vec::new() }
    }

    /// The record in hand is whole; answers with the files sealed by that.
    fn release(&mut self) -> Vec<FileId> {
        let files = &self.files;
        self.in_hand.retain(|id| files.get(id).is_some_and(|file| file.due));
        if self.in_hand.is_empty() {
            return Vec::new();
        }
        let released = std::mem::take(&mut self.in_hand);
        released.iter().for_each(|id| self.seal_now(*id));
        released
    }

    /// Takes a record, which is the next of its partition or one seen before.
    pub fn take(&mut self, mut record: SinkRecord, now: Instant) -> Taken {
        self.next(&record);
        let slot = self.partition(&record);
        let partition = &mut self.partitions[slot];
        if !partition.is_new(record.offset) {
            return Taken::Skipped;
        }
        self.path.clear();
        let group = match self.gather.stage(&mut record) {
            Ok(Some(group)) => group,
            Ok(None) => return Taken::Skipped,
            Err(error) => return Taken::Refused(Box::new(record), error),
        };
        if let Err(error) = self.settings.path.render(&mut self.path, &record.record, &record.origin) {
            return Taken::Refused(Box::new(record), error);
        }
        let id = match &partition.latest {
            Some((path, of, id)) if *of == group && *path == self.path => *id,
            _ => {
                let files = partition.filling.get(&self.path).into_iter().flatten();
                let found = files.copied().find(|(of, _)| *of == group);
                found.map_or_else(|| self.create(slot, group, record.offset, now), |(_, id)| id)
            }
        };
        match self.append(slot, id, &record) {
            Ok(()) => Taken::Written(id),
            Err(error) => {
                // One that was made for this record alone would hold back its partition for nothing.
                if self.files.get(&id).is_some_and(|file| file.count == 0) {
                    self.finish(id);
                }
                Taken::Refused(Box::new(record), error)
            }
        }
    }

    fn partition(&mut self, record: &SinkRecord) -> usize {
        if self.partitions.get(self.latest).is_some_and(|partition| partition.origin == record.origin) {
            return self.latest;
        }
        let found = self.partitions.iter().position(|partition| partition.origin == record.origin);
        self.latest = found.unwrap_or_else(|| {
            self.open(record.origin.clone(), record.offset);
            self.partitions.len() - 1
        });
        self.latest
    }

    fn create(&mut self, slot: usize, group: Group, first: i64, now: Instant) -> FileId {
        let id = self.next_id;
        self.next_id += 1;
        let partition = &mut self.partitions[slot];
        partition.filling.entry(self.path.clone()).or_default().push((group, id));
        let file = Rolled {
            origin: partition.origin.clone(),
            path: self.path.clone(),
            first,
            count: 0,
            bytes: 0,
            group,
            sealed: false,
            due: false,
            body: B::default(),
            buffer: G::Buffer::default(),
            opened: now,
        };
        self.files.insert(id, file);
        self.buffered += FILE_OVERHEAD;
        self.unsealed += 1;
        id
    }

    fn append(&mut self, slot: usize, id: FileId, record: &SinkRecord) -> Result<()> {
        let file = self.files.get_mut(&id).expect("a file being filled is among the files");
        let before = file.buffer.held();
        let appended = self.gather.append(&mut file.buffer, file.group, record);
        self.buffered = self.buffered - before + file.buffer.held();
        file.bytes += appended? as u64;
        file.count += 1;
        file.due |= file.bytes >= self.settings.size
            || (self.settings.count > 0 && file.count >= self.settings.count);
        if self.in_hand.last() != Some(&id) && !self.in_hand.contains(&id) {
            self.in_hand.push(id);
        }
        let group = file.group;
        let partition = &mut self.partitions[slot];
        if partition.latest.as_ref().is_none_or(|(_, _, latest)| *latest != id) {
            partition.latest = Some((self.path.clone(), group, id));
        }
        Ok(())
    }

    /// Adds no more records to a file, but for those made from the record in hand.
    pub fn seal(&mut self, id: FileId) {
        if self.in_hand.contains(&id) {
            self.files.get_mut(&id).into_iter().for_each(|file| file.due = true);
        } else {
            self.seal_now(id);
        }
    }

    fn seal_now(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id).filter(|file| !file.sealed) else { return };
        file.sealed = true;
        self.unsealed -= 1;
        if let Some(partition) = self.partitions.iter_mut().find(|partition| partition.origin == file.origin)
        {
            if let Some(files) = partition.filling.get_mut(&file.path) {
                files.retain(|(_, filling)| *filling != id);
                if files.is_empty() {
                    partition.filling.remove(&file.path);
                }
            }
            if partition.latest.as_ref().is_some_and(|(_, _, latest)| *latest == id) {
                partition.latest = None;
            }
        }
    }

    /// Seals every file of the partitions whose oldest record has reached the age.
    fn seal_due(&mut self, now: Instant) {
        let age = self.settings.age;
        let is_due =
            |file: &&Rolled<B, G::Buffer>| !file.sealed && now.saturating_duration_since(file.opened) >= age;
        let due: Vec<TopicPartition> =
            self.files.values().filter(is_due).map(|file| file.origin.clone()).collect();
        let ids = self.files.iter().filter(|(_, file)| due.contains(&file.origin)).map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            self.seal(id);
        }
    }

    /// Seals everything.
    pub fn seal_all(&mut self) {
        for id in self.files.keys().copied().collect::<Vec<_>>() {
            self.seal(id);
        }
    }

    /// The file with the largest buffer, of those that [`Rolling::seal`] seals at once.
    pub fn largest(&self) -> Option<FileId> {
        self.largest_by(|file| file.buffer.held())
    }

    /// The same, by what `size` says.
    pub fn largest_by(&self, size: impl Fn(&Rolled<B, G::Buffer>) -> usize) -> Option<FileId> {
        let open = self.files.iter().filter(|(id, file)| !file.sealed && !self.in_hand.contains(id));
        open.max_by_key(|(_, file)| size(file)).map(|(id, _)| *id)
    }

    /// How many files still take records.
    pub fn unsealed(&self) -> usize {
        self.unsealed
    }

    /// A file.
    pub fn get_mut(&mut self, id: FileId) -> Option<&mut Rolled<B, G::Buffer>> {
        self.files.get_mut(&id)
    }

    /// Every unfinished file, oldest first.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &Rolled<B, G::Buffer>)> {
        self.files.iter().map(|(id, file)| (*id, file))
    }

    /// Takes the bytes that were not handed over yet.
    pub fn hand_over(&mut self, id: FileId) -> G::Buffer {
        let Some(file) = self.files.get_mut(&id) else { return G::Buffer::default() };
        self.buffered -= file.buffer.held();
        std::mem::take(&mut file.buffer)
    }

    /// Memory held in buffers, in bytes, including what the files themselves cost.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// A file is durable, or given up: it no longer holds back its partition.
    pub fn finish(&mut self, id: FileId) -> Option<Rolled<B, G::Buffer>> {
        self.seal_now(id);
        let file = self.files.remove(&id)?;
        self.buffered -= file.buffer.held() + FILE_OVERHEAD;
        Some(file)
    }

    /// Up to which offsets everything is durable, given what was taken.
    pub fn durable(&self, taken: &Offsets) -> Offsets {
        let mut durable = taken.clone();
        for file in self.files.values() {
            if let Some(offset) = durable.get_mut(&file.origin) {
                *offset = (*offset).min(file.first);
            }
        }
        durable
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{Datum, Record};

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition { topic: Arc::from("t"), partition }
    }

    fn record(partition: i32, offset: i64, json: &str) -> SinkRecord {
        let value = Datum::json(None, Bytes::copy_from_slice(json.as_bytes()));
        let origin = tp(partition);
        SinkRecord {
            record: Record::new(Arc::clone(&origin.topic), value),
            origin,
            offset,
            consumed: Arc::default(),
        }
    }

    fn rolling(path: &str, count: u64) -> Rolling<()> {
        Rolling::new(settings(path, count))
    }

    fn settings(path: &str, count: u64) -> RollSettings {
        RollSettings {
            path: PathTemplate::parse(path).expect("valid"),
            lines: LineFormat { nulls: Nulls::Fail, origin: false },
            size: 1000,
            count,
            age: Duration::from_secs(10),
        }
    }

    /// Groups by the length of the text; refuses what is long.
    struct ByLength;

    impl Gather for ByLength {
        type Buffer = Vec<u8>;

        fn stage(&mut self, record: &mut SinkRecord) -> Result<Option<Group>> {
            Ok(record.record.value.as_json().map(|text| text.len() as Group))
        }

        fn append(&mut self, buffer: &mut Vec<u8>, group: Group, record: &SinkRecord) -> Result<usize> {
            if group > 9 {
                return Err(Error::bad_record("too long"));
            }
            buffer.extend_from_slice(&record.record.value.to_json()?);
            Ok(group as usize)
        }
    }

    #[test]
    fn groups_have_files_of_their_own_and_a_refused_record_leaves_none() {
        let mut rolling: Rolling<(), ByLength> = Rolling::gathering(settings("", 2), ByLength);
        let now = Instant::now();
        rolling.open(tp(0), 4);
        let texts = ["{}", "[[]]", "{}", "[[[[[]]]]]", "[[]]", "{}"];
        for (offset, text) in (4..).zip(texts) {
            let taken = rolling.take(record(0, offset, text), now);
            assert_eq!(matches!(taken, Taken::Refused(..)), offset == 7);
        }
        rolling.end(now);
        let files: Vec<(i64, Group, u64, bool)> =
            rolling.files().map(|(_, f)| (f.first, f.group, f.count, f.sealed)).collect();
        assert_eq!(files, [(4, 2, 2, true), (5, 4, 2, true), (9, 2, 1, false)]);
        assert_eq!(rolling.unsealed(), 1);
    }

    fn durable(rolling: &Rolling<()>, partition: i32, taken: i64) -> i64 {
        rolling.durable(&Offsets::from([(tp(partition), taken)]))[&tp(partition)]
    }

    #[test]
    fn a_partition_is_durable_up_to_its_first_unfinished_file() {
        let mut rolling = rolling("{field.c}", 2);
        let now = Instant::now();
        rolling.open(tp(0), 5);
        for (offset, country) in [(5, "de"), (6, "fr"), (7, "fr"), (8, "de")] {
            rolling.take(record(0, offset, &format!(r#"{{"c":"{country}"}}"#)), now);
        }
        rolling.end(now);
        assert_eq!(durable(&rolling, 0, 9), 5);
        let names: Vec<String> =
            rolling.files().map(|(_, f)| f.path.clone() + &f.name(None, "jsonl")).collect();
        assert_eq!(names, ["de/t+0+00000000000000000005.jsonl", "fr/t+0+00000000000000000006.jsonl"]);
        assert!(rolling.files().all(|(_, file)| file.sealed && file.count == 2));
        rolling.finish(1);
        assert_eq!(durable(&rolling, 0, 9), 5);
        rolling.finish(0);
        assert_eq!(durable(&rolling, 0, 9), 9);
        assert_eq!(rolling.buffered(), 0);
    }

    #[test]
    fn records_seen_before_are_skipped_and_bad_ones_refused() {
        let mut rolling = rolling("", 0);
        let now = Instant::now();
        rolling.open(tp(0), 3);
        assert!(matches!(rolling.take(record(0, 2, "{}"), now), Taken::Skipped));
        assert!(matches!(rolling.take(record(0, 3, "{}"), now), Taken::Written(0)));
        rolling.begin();
        assert!(matches!(rolling.take(record(0, 3, "{}"), now), Taken::Skipped));
        assert!(matches!(rolling.take(record(0, 4, "null"), now), Taken::Refused(..)));
        assert!(matches!(rolling.take(record(0, 5, "{}"), now), Taken::Written(0)));
        assert_eq!(rolling.hand_over(0), b"{}\n{}\n");
    }

    #[test]
    fn all_records_made_from_one_are_taken_and_none_twice() {
        let mut rolling = rolling("", 0);
        let now = Instant::now();
        rolling.open(tp(0), 7);
        let batch = |rolling: &mut Rolling<()>, offsets: &[i64]| {
            rolling.begin();
            for offset in offsets {
                rolling.take(record(0, *offset, "{}"), now);
            }
        };
        // Before the start, then a call that broke off among the three of offset 8, its repetition, and the next batch.
        for offsets in [&[6, 6][..], &[7, 7, 8, 8], &[7, 7, 8, 8, 8, 9], &[10, 10]] {
            batch(&mut rolling, offsets);
        }
        assert_eq!(rolling.get_mut(0).map(|file| file.count), Some(2 + 3 + 1 + 2));
    }

    /// Names and contents of all files.
    fn files(rolling: &mut Rolling<()>) -> Vec<(String, Vec<u8>)> {
        let ids: Vec<FileId> = rolling.files().map(|(id, _)| id).collect();
        let file = |id| {
            let name = rolling.get_mut(id).map(|file| file.path.clone() + &file.name(None, "jsonl"));
            (name.unwrap_or_default(), rolling.hand_over(id))
        };
        ids.into_iter().map(file).collect()
    }

    #[test]
    fn records_made_from_one_are_never_parted_by_a_roll() {
        // Each input becomes three equal records: by count, by size, and by a sink that is short of memory.
        for (count, size, short) in [(2, 1000, false), (0, 1, false), (0, 1000, true)] {
            let mut rolling = rolling("", count);
            rolling.settings.size = size;
            let now = Instant::now();
            rolling.open(tp(0), 7);
            rolling.begin();
            for offset in [7, 7, 7, 8, 8, 8] {
                rolling.next(&record(0, offset, "{}"));
                let Taken::Written(id) = rolling.take(record(0, offset, "{}"), now) else {
                    panic!("every record is taken");
                };
                if short {
                    rolling.seal(id);
                }
            }
            assert_eq!(rolling.files().filter(|(_, file)| file.sealed).count(), 1, "what is whole is sealed");
            rolling.end(now);
            assert!(rolling.files().all(|(_, file)| file.sealed));
            let whole = b"{}\n{}\n{}\n".to_vec();
            let named = |offset| (format!("t+0+{offset:020}.jsonl"), whole.clone());
            assert_eq!(files(&mut rolling), [named(7), named(8)]);
        }
    }

    #[test]
    fn a_batch_that_broke_off_among_them_is_not_sealed_before_it_has_come_again() {
        let mut rolling = rolling("", 1);
        let now = Instant::now();
        rolling.open(tp(0), 7);
        rolling.begin();
        for offset in [7, 8] {
            rolling.take(record(0, offset, "{}"), now);
        }
        // The put fails here; the sink flushes, is asked for progress, and gets the batch again.
        rolling.seal_all();
        rolling.begin();
        rolling.end(now + Duration::from_secs(60));
        assert_eq!(durable(&rolling, 0, 7), 7);
        assert_eq!(rolling.files().filter(|(_, file)| !file.sealed).count(), 1);
        rolling.begin();
        for offset in [7, 8, 8, 9] {
            rolling.take(record(0, offset, "{}"), now);
        }
        rolling.end(now);
        let named = |offset, lines: &str| (format!("t+0+{offset:020}.jsonl"), lines.as_bytes().to_vec());
        assert_eq!(files(&mut rolling), [named(7, "{}\n"), named(8, "{}\n{}\n"), named(9, "{}\n")]);
    }

    #[test]
    fn age_seals_all_files_of_the_partition_together() {
        let mut rolling = rolling("{field.c}", 0);
        let start = Instant::now();
        rolling.take(record(0, 0, r#"{"c":1}"#), start);
        rolling.take(record(0, 1, r#"{"c":2}"#), start + Duration::from_secs(9));
        rolling.take(record(1, 0, r#"{"c":1}"#), start + Duration::from_secs(9));
        rolling.end(start + Duration::from_secs(9));
        assert!(rolling.files().all(|(_, file)| !file.sealed));
        rolling.end(start + Duration::from_secs(10));
        let sealed: Vec<bool> = rolling.files().map(|(_, file)| file.sealed).collect();
        assert_eq!(sealed, [true, true, false]);
        assert!(
            matches!(rolling.take(record(0, 2, r#"{"c":1}"#), start), Taken::Written(3)),
            "a new file begins"
        );
    }

    #[test]
    fn the_largest_file_is_found_and_closing_gives_files_up() {
        let mut rolling = rolling("{field.c}", 0);
        let now = Instant::now();
        rolling.take(record(0, 0, r#"{"c":1}"#), now);
        rolling.take(record(0, 1, r#"{"c":2,"long":"xxxxxxxxxxxxxxxxxxxxxxxx"}"#), now);
        assert_eq!(rolling.largest(), Some(0), "the other may get more from the record in hand");
        rolling.end(now);
        for expect in [1, 0] {
            assert_eq!(rolling.largest(), Some(expect));
            rolling.seal(expect);
        }
        assert_eq!(rolling.largest(), None);
        assert_eq!(rolling.close(&tp(0)).len(), 2);
        assert_eq!(rolling.buffered(), 0);
    }

    #[test]
    fn only_own_names_are_recognised() {
        let own = |name| is_name_of(name, &tp(0), "jsonl");
        assert!(own("t+0+00000000000000000006.jsonl"));
        assert!(own("t+0+00000000000000000006.12.jsonl"));
        assert!(own("t+0+00000000000000000006.9f3a.jsonl"));
        for other in [
            "t+1+00000000000000000006.jsonl",
            "t+0+6.jsonl",
            "tt+0+00000000000000000006.jsonl",
            "t+0+00000000000000000006.json",
            "t+0+00000000000000000006.a.b.jsonl",
            "t+0+00000000000000000006..jsonl",
        ] {
            assert!(!own(other), "{other}");
        }
    }
}
