//! Values to Parquet and back, for every type.

use std::sync::Arc;

use aqueduct_core::sink::{SinkRecord, TopicPartition};
use aqueduct_core::{Datum, ErrorKind, Field, Record, Schema, Type, Value, logical};
use bytes::Bytes;
use num_bigint::BigInt;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field as Read, Row};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn record(offset: i64) -> SinkRecord {
    let topic: aqueduct_core::Topic = Arc::from("orders");
    SinkRecord {
        record: Record::new(Arc::clone(&topic), Datum::null()),
        origin: TopicPartition { topic, partition: 2 },
        offset,
        consumed: Arc::default(),
    }
}

/// A file of row groups of at most `group` rows.
fn write(layout: &Arc<Layout>, values: &[Value], group: usize) -> Bytes {
    let mut file = FileWriter::new(layout, Compression::Zstd).expect("it begins");
    let mut bytes = Vec::new();
    for (i, values) in values.chunks(group).enumerate() {
        let mut rows = Rows::new(Arc::clone(layout));
        for (offset, value) in values.iter().enumerate() {
            let offset = (i * group + offset) as i64;
            rows.append(value, &record(offset)).expect("it is of the schema");
        }
        file.write(rows).expect("it is written");
        bytes.extend(file.take().expect("it is made"));
    }
    bytes.extend(file.finish().expect("it ends"));
    bytes.into()
}

fn structure(fields: &[(&str, Schema)]) -> Schema {
    let fields = fields.iter().map(|(name, schema)| Field::new(*name, schema.clone().shared()));
    Schema::new(Type::Struct(fields.collect()))
}

/// Every kind of single value.
fn leaves() -> Vec<Schema> {
    let named = |ty, name: &str| Schema::new(ty).named(name);
    let decimal = |scale, precision: &str| {
        logical::decimal_schema(scale).parameter("connect.decimal.precision", precision)
    };
    vec![
        Schema::new(Type::Boolean),
        Schema::new(Type::Int8),
        Schema::new(Type::Int16),
        Schema::new(Type::Int32),
        Schema::new(Type::Int64),
        Schema::new(Type::Float32),
        Schema::new(Type::Float64),
        Schema::new(Type::String),
        Schema::new(Type::Bytes),
        decimal(2, "10"),
        decimal(3, "18"),
        decimal(3, "30"),
        decimal(-2, "9"),
        decimal(5, "70"),
        logical::decimal_schema(4),
        named(Type::Int32, logical::DATE),
        named(Type::Int32, logical::DEBEZIUM_DATE),
        named(Type::Int32, logical::TIME),
        named(Type::Int32, "io.debezium.time.Time"),
        named(Type::Int64, logical::DEBEZIUM_MICRO_TIME),
        named(Type::Int64, "io.debezium.time.NanoTime"),
        named(Type::Int64, logical::TIMESTAMP),
        named(Type::Int64, logical::DEBEZIUM_TIMESTAMP),
        named(Type::Int64, logical::DEBEZIUM_MICRO_TIMESTAMP),
        named(Type::Int64, "io.debezium.time.NanoTimestamp"),
        named(Type::Int64, "io.debezium.time.MicroDuration"),
        named(Type::String, logical::DEBEZIUM_ZONED_TIMESTAMP),
        named(Type::String, logical::DEBEZIUM_JSON),
        named(Type::String, logical::DEBEZIUM_UUID),
    ]
}

fn schemas() -> impl Strategy<Value = Schema> {
    let optional = |(schema, optional): (Schema, bool)| if optional { schema.optional() } else { schema };
    let leaf = (select(leaves()), any::<bool>()).prop_map(optional);
    let nested = leaf.prop_recursive(4, 16, 4, move |inner| {
        let shared = inner.clone().prop_map(Schema::shared);
        let key = select(vec![Type::String, Type::Int32]).prop_map(|ty| Schema::new(ty).shared());
        let shape = prop_oneof![
            shared.clone().prop_map(Type::Array),
            (key, shared.clone()).prop_map(|(key, value)| Type::Map(key, value)),
            vec(shared, 1..4).prop_map(|fields| {
                let named =
                    fields.into_iter().enumerate().map(|(i, schema)| Field::new(format!("f{i}"), schema));
                Type::Struct(named.collect())
            }),
        ];
        (shape.prop_map(Schema::new), any::<bool>()).prop_map(optional)
    });
    vec(nested, 1..4).prop_map(|fields| {
        let named =
            fields.into_iter().enumerate().map(|(i, schema)| Field::new(format!("c{i}"), schema.shared()));
        Schema::new(Type::Struct(named.collect()))
    })
}

fn values(schema: &Schema) -> BoxedStrategy<Value> {
    let there = match &schema.ty {
        Type::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Type::Int8 => any::<i8>().prop_map(Value::from).boxed(),
        Type::Int16 => any::<i16>().prop_map(Value::from).boxed(),
        Type::Int32 => any::<i32>().prop_map(Value::from).boxed(),
        Type::Int64 => any::<i64>().prop_map(Value::from).boxed(),
        Type::Float32 => any::<f32>().prop_map(Value::from).boxed(),
        Type::Float64 => any::<f64>().prop_map(Value::from).boxed(),
        Type::String => ".{0,8}".prop_map(Value::from).boxed(),
        Type::Bytes if logical::decimal_scale(schema).is_some() => {
            let digits =
                schema.parameters.get("connect.decimal.precision").map_or(38, |p| p.parse().unwrap_or(38));
            (any::<i128>(), any::<i128>())
                .prop_map(move |(a, b)| {
                    let number = (BigInt::from(a) * BigInt::from(b)) % BigInt::from(10).pow(digits);
                    Value::Bytes(number.to_signed_bytes_be().into())
                })
                .boxed()
        }
        Type::Bytes => vec(any::<u8>(), 0..8).prop_map(|bytes| Value::Bytes(bytes.into())).boxed(),
        Type::Array(element) => vec(values(element), 0..4).prop_map(Value::Array).boxed(),
        Type::Map(key, value) => vec((values(key), values(value)), 0..4).prop_map(Value::Map).boxed(),
        Type::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|field| values(&field.schema)).collect();
            fields.prop_map(Value::Struct).boxed()
        }
    };
    if schema.optional { prop_oneof![1 => Just(Value::Null), 3 => there].boxed() } else { there }
}

fn read(file: Bytes, schema: &Schema) -> Vec<Value> {
    let reader = SerializedFileReader::new(file).expect("a Parquet file");
    let rows = reader.get_row_iter(None).expect("rows");
    rows.map(|row| back_row(&row.expect("a row"), schema)).collect()
}

fn back_row(row: &Row, schema: &Schema) -> Value {
    let fields = row.get_column_iter().zip(schema.fields());
    Value::Struct(fields.map(|((_, read), field)| back(read, &field.schema)).collect())
}

fn back(read: &Read, schema: &Schema) -> Value {
    match (read, &schema.ty) {
        (Read::Null, _) => Value::Null,
        (Read::Bool(v), _) => (*v).into(),
        (Read::Byte(v), _) => (*v).into(),
        (Read::Short(v), _) => (*v).into(),
        (Read::Int(v) | Read::Date(v) | Read::TimeMillis(v), _) => (*v).into(),
        (Read::Long(v) | Read::TimeMicros(v) | Read::TimestampMillis(v) | Read::TimestampMicros(v), _) => {
            (*v).into()
        }
        (Read::Float(v), _) => (*v).into(),
        (Read::Double(v), _) => (*v).into(),
        (Read::Str(v), _) => v.clone().into(),
        (Read::Bytes(v), _) => Value::Bytes(Bytes::copy_from_slice(v.data())),
        (Read::Decimal(v), _) => {
            let scale = logical::decimal_scale(schema).expect("a Decimal");
            let number = BigInt::from_signed_bytes_be(v.data());
            let number = number / BigInt::from(10).pow(scale.min(0).unsigned_abs());
            Value::Bytes(number.to_signed_bytes_be().into())
        }
        (Read::Group(row), _) => back_row(row, schema),
        (Read::ListInternal(list), Type::Array(element)) => {
            Value::Array(list.elements().iter().map(|read| back(read, element)).collect())
        }
        (Read::MapInternal(map), Type::Map(key, value)) => {
            Value::Map(map.entries().iter().map(|(k, v)| (back(k, key), back(v, value))).collect())
        }
        (other, ty) => panic!("{other:?} was read for {ty:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_value_comes_back((schema, values) in schemas().prop_flat_map(|schema| {
        let values = vec(values(&schema), 1..9);
        (Just(schema), values)
    }), group in 1..9usize) {
        let layout = Arc::new(Layout::new(&schema, false).expect("every schema here has columns"));
        let file = write(&layout, &values, group);
        // As text, since NaN is not itself.
        prop_assert_eq!(format!("{:?}", read(file.clone(), &schema)), format!("{values:?}"));
        prop_assert_eq!(write(&layout, &values, group), file);
    }

    #[test]
    fn a_record_that_does_not_fit_leaves_nothing_behind((schema, values) in schemas().prop_flat_map(|schema| {
        // The last column fails, after all others took their part.
        let schema = structure(&[("first", schema), ("last", Schema::new(Type::Int64))]);
        let values = vec(values(&schema), 1..9);
        (Just(schema), values)
    })) {
        let layout = Arc::new(Layout::new(&schema, true).expect("every schema here has columns"));
        let mut rows = Rows::new(Arc::clone(&layout));
        for (offset, value) in (0..).zip(&values) {
            let Value::Struct(fields) = value else { unreachable!("it is a struct") };
            let bad = Value::Struct(vec![fields[0].clone(), Value::Null]);
            let error = rows.append(&bad, &record(offset)).expect_err("null is not allowed");
            prop_assert_eq!(error.kind(), ErrorKind::BadRecord);
            prop_assert!(error.message().contains("`last`"), "{}", error.message());
            rows.append(value, &record(offset)).expect("it fits");
        }
        let mut file = FileWriter::new(&layout, Compression::Zstd).expect("it begins");
        file.write(rows).expect("it is written");
        let mut bytes = file.take().expect("it is made");
        bytes.extend(file.finish().expect("it ends"));
        prop_assert_eq!(Bytes::from(bytes), write(&layout, &values, 10));
    }
}

#[test]
fn a_file_is_read_as_the_json_of_its_records() {
    let text = || Schema::new(Type::String);
    let schema = structure(&[
        ("id", Schema::new(Type::Int64)),
        ("price", logical::decimal_schema(2)),
        ("at", Schema::new(Type::Int64).named(logical::DEBEZIUM_MICRO_TIMESTAMP).optional()),
        ("tags", Schema::new(Type::Array(text().optional().shared()))),
        ("attributes", Schema::new(Type::Map(text().shared(), text().optional().shared()))),
        ("_offset", text()),
    ]);
    let layout = Arc::new(Layout::new(&schema, true).expect("valid"));
    let value = Value::Struct(vec![
        Value::Int64(7),
        Value::Bytes(logical::decimal_bytes("-12.30", 2).expect("a number")),
        Value::Null,
        Value::Array(vec!["a".into(), Value::Null]),
        Value::Map(vec![("k".into(), "v".into())]),
        "the column of the origin takes this place".into(),
    ]);
    let rows = read_json(write(&layout, &[value], 1)).expect("it is read");
    let expect = serde_json::json!({
        "id": 7, "price": -12.3, "at": null, "tags": ["a", null], "attributes": {"k": "v"},
        "_topic": "orders", "_partition": 2, "_offset": 0
    });
    assert_eq!(rows, [expect]);
}

#[test]
fn a_value_that_is_no_struct_is_the_only_column() {
    let layout = Arc::new(Layout::new(&Schema::new(Type::String), false).expect("valid"));
    let rows = read_json(write(&layout, &["a".into(), "b".into()], 5)).expect("it is read");
    assert_eq!(rows, [serde_json::json!({"value": "a"}), serde_json::json!({"value": "b"})]);
}

#[test]
fn what_parquet_cannot_hold_is_said_by_field() {
    let check = |schema: Schema, words: &str| {
        let error = Layout::new(&structure(&[("a", structure(&[("b", schema)]))]), false).expect_err(words);
        assert_eq!(error.kind(), ErrorKind::BadRecord);
        assert!(error.message().contains("`a.b`") && error.message().contains(words), "{}", error.message());
    };
    check(Schema::new(Type::Struct(Vec::new())), "at least one field");
    check(logical::decimal_schema(77), "76 digits");
    check(Schema::new(Type::Bytes).named(logical::DECIMAL), "no scale");
    let twice = Field::new("x", Schema::new(Type::Int8).shared());
    check(Schema::new(Type::Struct(vec![twice.clone(), twice])), "two fields");
    let mut deep = Schema::new(Type::Int8);
    for _ in 0..100 {
        deep = Schema::new(Type::Array(deep.shared()));
    }
    let error = Layout::new(&structure(&[("a", deep)]), false).expect_err("too deep");
    assert!(error.message().contains("deeper than 64"), "{}", error.message());
}
