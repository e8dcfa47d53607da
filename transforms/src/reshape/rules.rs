//! The tree of what happens to which field, applied to schemas and to maps.

use aqueduct_core::{Error, Field, FieldPath, Result, Schema, SchemaRef, Str, Type, Value};

/// What happens to the fields of one struct or map.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Whether fields without a rule are taken out.
    only: bool,
    rules: Vec<(Str, Rule)>,
    named: Vec<FieldPath>,
}

#[derive(Debug, Default)]
struct Rule {
    remove: bool,
    rename: Option<String>,
    below: Option<Rules>,
}

impl Rules {
    /// `exclude` wins over `include`; renames name fields by what they are called before.
    pub(crate) fn new(
        exclude: &[FieldPath],
        include: &[FieldPath],
        renames: &[(FieldPath, String)],
    ) -> Result<Self, String> {
        let mut rules = Rules { only: !include.is_empty(), ..Rules::default() };
        for path in include {
            // Something kept whole stays whole, whatever of it is named besides.
            rules.add(path, true, |_| {});
        }
        for (path, new) in renames {
            rules.add(path, false, |rule| rule.rename = Some(new.clone()));
        }
        for path in exclude {
            rules.add(path, false, |rule| rule.remove = true);
        }
        let mut named: Vec<FieldPath> = include.to_vec();
        named.extend(renames.iter().map(|(path, _)| path.clone()));
        named.extend(exclude.iter().cloned());
        if let Some(outer) = named.iter().find(|a| {
            include.contains(a) && named.iter().any(|b| b != *a && include.contains(b) && b.starts_with(a))
        }) {
            return Err(format!("`{outer}` is kept whole, and a field below it is named too"));
        }
        rules.named = named;
        Ok(rules)
    }

    fn add(&mut self, path: &FieldPath, only: bool, set: impl FnOnce(&mut Rule)) {
        let mut rules = self;
        let Some((last, parents)) = path.parts().split_last() else { return };
        for part in parents {
            let rule = rules.rule(part, only);
            rules = rule.below.get_or_insert_with(|| Rules { only, ..Rules::default() });
        }
        set(rules.rule(last, only));
    }

    fn rule(&mut self, name: &Str, included: bool) -> &mut Rule {
        let i = match self.rules.iter().position(|(known, _)| known == name) {
            Some(i) => i,
            None => {
                // Among fields of which only some are kept, one that is merely renamed is not kept by that.
                let remove = self.only && !included;
                self.rules.push((name.clone(), Rule { remove, ..Rule::default() }));
                self.rules.len() - 1
            }
        };
        &mut self.rules[i].1
    }

    /// Every field that is named.
    pub(super) fn named(&self) -> impl Iterator<Item = &FieldPath> {
        self.named.iter()
    }

    fn of(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|(known, _)| &**known == name).map(|(_, rule)| rule)
    }

    fn removes(&self, name: &str) -> bool {
        self.of(name).map_or(self.only, |rule| rule.remove)
    }

    fn new_name<'n>(&'n self, name: &'n str) -> &'n str {
        self.of(name).and_then(|rule| rule.rename.as_deref()).unwrap_or(name)
    }

    /// Whether no two fields of the map, or of those within, would have one name.
    pub(super) fn check(&self, value: &Value) -> Result<()> {
        let Value::Map(entries) = value else { return Ok(()) };
        let names = entries.iter().filter_map(|(key, _)| key.as_str()).filter(|name| !self.removes(name));
        if self.rules.iter().any(|(_, rule)| rule.rename.is_some()) {
            distinct(names.clone().map(|name| self.new_name(name)))?;
        }
        for (key, value) in entries {
            if let Some(below) =
                key.as_str().and_then(|name| self.of(name)).and_then(|rule| rule.below.as_ref())
            {
                below.check(value)?;
            }
        }
        Ok(())
    }

    /// Changes a map in place. What is no map, such as a null on the way, stays.
    pub(super) fn apply(&self, value: &mut Value) {
        let Value::Map(entries) = value else { return };
        entries.retain(|(key, _)| key.as_str().is_none_or(|name| !self.removes(name)));
        for (key, value) in entries {
            let Some(rule) = key.as_str().and_then(|name| self.of(name)) else { continue };
            if let Some(below) = &rule.below {
                below.apply(value);
            }
            if let Some(new) = &rule.rename {
                *key = Value::from(new.as_str());
            }
        }
    }
}

fn distinct<'n>(names: impl Iterator<Item = &'n str>) -> Result<()> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(Error::bad_record(format!("two fields would be named `{}`", twice[0]))),
        None => Ok(()),
    }
}

/// What the rules mean for one struct schema.
pub(super) struct Shape {
    fields: Vec<(usize, Option<Shape>)>,
    schema: SchemaRef,
}

impl Shape {
    pub(super) fn new(rules: &Rules, schema: &SchemaRef) -> Result<Self> {
        let Type::Struct(fields) = &schema.ty else {
            let ty = schema.ty.name();
            return Err(Error::bad_record(format!("only structs and maps have fields, not {ty}")));
        };
        let mut kept = Vec::with_capacity(fields.len());
        let mut out: Vec<Field> = Vec::with_capacity(fields.len());
        for (i, field) in fields.iter().enumerate().filter(|(_, field)| !rules.removes(&field.name)) {
            let below = match rules.of(&field.name).and_then(|rule| rule.below.as_ref()) {
                Some(below) if matches!(field.schema.ty, Type::Struct(_)) => {
                    Some(Shape::new(below, &field.schema)?)
                }
                _ => None,
            };
            let schema = below
                .as_ref()
                .map_or_else(|| SchemaRef::clone(&field.schema), |shape| SchemaRef::clone(&shape.schema));
            out.push(Field::new(rules.new_name(&field.name), schema));
            kept.push((i, below));
        }
        distinct(out.iter().map(|field| &*field.name))?;
        // A default of the old fields would not fit.
        let schema = Schema { ty: Type::Struct(out), default: None, ..Schema::clone(schema) };
        Ok(Self { fields: kept, schema: schema.shared() })
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn apply(&self, value: Value) -> Value {
        let Value::Struct(mut values) = value else { return value };
        let take = |(i, below): &(usize, Option<Shape>)| {
            let value = values.get_mut(*i).map(std::mem::take).unwrap_or_default();
            match below {
                Some(shape) => shape.apply(value),
                None => value,
            }
        };
        Value::Struct(self.fields.iter().map(take).collect())
    }
}
