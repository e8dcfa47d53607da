//! What a step worked out for a schema, kept for the next record of the same schema.
//!
//! **Invariant:** schemas are compared by pointer first; the cache holds the schema, so that its address is not used
//! again, and holds a bounded number of them.

use std::sync::Arc;

use crate::{Result, SchemaRef};

/// A few schemas are in use at a time; past this the oldest entry goes.
const CAPACITY: usize = 64;

/// Plans by schema.
#[derive(Debug)]
pub struct SchemaCache<T> {
    entries: Vec<(Option<SchemaRef>, T)>,
    last: usize,
    oldest: usize,
}

impl<T> Default for SchemaCache<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), last: 0, oldest: 0 }
    }
}

impl<T> SchemaCache<T> {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// The plan for this schema (`None`: data without one), made on first sight. A failure is not kept.
    pub fn get(
        &mut self,
        schema: Option<&SchemaRef>,
        make: impl FnOnce(Option<&SchemaRef>) -> Result<T>,
    ) -> Result<&T> {
        let hit = |entry: &(Option<SchemaRef>, T)| match (&entry.0, schema) {
            (Some(known), Some(given)) => Arc::ptr_eq(known, given),
            (None, None) => true,
            _ => false,
        };
        if !self.entries.get(self.last).is_some_and(hit) {
            self.last = match self.entries.iter().position(hit) {
                Some(i) => i,
                None => self.insert(schema, make)?,
            };
        }
        Ok(&self.entries[self.last].1)
    }

    fn insert(
        &mut self,
        schema: Option<&SchemaRef>,
        make: impl FnOnce(Option<&SchemaRef>) -> Result<T>,
    ) -> Result<usize> {
        // The same schema at another address, as after a restart of the source: the plan stays, so that what comes
        // out keeps its address.
        if let Some(i) = self.entries.iter().position(|(known, _)| known.as_ref() == schema) {
            self.entries[i].0 = schema.cloned();
            return Ok(i);
        }
        let entry = (schema.cloned(), make(schema)?);
        if self.entries.len() < CAPACITY {
            self.entries.push(entry);
            return Ok(self.entries.len() - 1);
        }
        let i = self.oldest;
        self.entries[i] = entry;
        self.oldest = (i + 1) % CAPACITY;
        Ok(i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Schema, Type};

    #[test]
    fn an_equal_schema_at_another_address_keeps_the_plan() {
        let mut cache = SchemaCache::new();
        let made = |v| move |_: Option<&SchemaRef>| Ok(v);
        let (a, b) = (Schema::new(Type::Int8).shared(), Schema::new(Type::Int8).shared());
        assert_eq!(*cache.get(Some(&a), made(1)).expect("made"), 1);
        assert_eq!(*cache.get(None, made(2)).expect("made"), 2);
        assert_eq!(*cache.get(Some(&b), made(3)).expect("kept"), 1);
    }

    #[test]
    fn the_number_of_plans_is_bounded() {
        let mut cache = SchemaCache::new();
        for i in 0..1000 {
            let schema = Schema::new(Type::Int8).versioned(i).shared();
            assert_eq!(*cache.get(Some(&schema), |_| Ok(i)).expect("made"), i);
        }
        assert_eq!(cache.entries.len(), CAPACITY);
    }
}
