//! The orders: their schema, and the order of a given number.

use aqueduct_core::{Field, Schema, SchemaRef, Str, Type, Value, logical};
use bytes::Bytes;

const FIRST: &[&str] = &[
    "Ada", "Bela", "Chidi", "Dana", "Emre", "Freya", "Goran", "Hana", "Ines", "Jonas", "Kira", "Luca", "Mei",
    "Nils", "Olga", "Priya",
];
const LAST: &[&str] = &[
    "Andersen", "Bauer", "Costa", "Dubois", "Eriksson", "Fischer", "Garcia", "Horvat", "Ivanova", "Jansen",
    "Kowalski", "Lehmann", "Moreau", "Novak", "Okafor", "Peeters",
];
/// Country, its calling code and its currency.
const COUNTRIES: &[(&str, &str, &str)] = &[
    ("DE", "+49", "EUR"),
    ("FR", "+33", "EUR"),
    ("GB", "+44", "GBP"),
    ("PL", "+48", "PLN"),
    ("SE", "+46", "SEK"),
    ("US", "+1", "USD"),
    ("CH", "+41", "CHF"),
    ("ES", "+34", "EUR"),
];
const ARTICLES: &[&str] = &["lamp", "desk", "chair", "shelf", "kettle", "mug", "clock", "rug"];

/// 2026-01-01T00:00:00Z; the order with number n was placed n seconds later.
const EPOCH_MS: i64 = 1_767_225_600_000;

/// Names of the fields, in order.
pub(crate) const FIELDS: &[&str] = &[
    "id",
    "order_no",
    "customer",
    "email",
    "phone",
    "country",
    "status",
    "amount",
    "currency",
    "created_at",
    "items",
];

/// Makes orders.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    seed: u64,
    schema: SchemaRef,
}

impl Orders {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, schema: schema() }
    }

    /// The schema of every order.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The order with number `n`.
    pub(crate) fn order(&self, n: u64) -> Value {
        let mut random = Random(self.seed ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (first, last) = (random.pick(FIRST), random.pick(LAST));
        let (country, code, currency) = random.pick(COUNTRIES);
        let status = match random.below(10) {
            0 => "cancelled",
            1 | 2 => "pending",
            _ => "paid",
        };
        let mut total = 0;
        let items: Vec<Value> = (0..=random.below(3)).map(|_| item(&mut random, &mut total)).collect();
        let email =
            format!("{}.{}{}@example.com", first.to_lowercase(), last.to_lowercase(), random.below(1000));
        let phone = format!("{code} 555 {:07}", random.below(10_000_000));
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        Value::Struct(vec![
            Value::Int64(n),
            text(format!("ORD-{n:09}")),
            text(format!("{first} {last}")),
            text(email),
            text(phone),
            Value::String(Str::from_static(country)),
            Value::String(Str::from_static(status)),
            cents(total),
            Value::String(Str::from_static(currency)),
            Value::Int64(EPOCH_MS.saturating_add(n.saturating_mul(1000))),
            Value::Array(items),
        ])
    }
}

fn item(random: &mut Random, total: &mut i64) -> Value {
    let quantity = 1 + random.below(4) as i32;
    let price = 199 + random.below(30_000) as i64;
    *total += price * i64::from(quantity);
    let article = Str::from_static(random.pick(ARTICLES));
    Value::Struct(vec![Value::String(article), Value::Int32(quantity), cents(price)])
}

fn text(text: String) -> Value {
    Value::String(Str::from(text))
}

/// A Decimal of scale 2: the shortest big-endian two's complement of the cents.
fn cents(cents: i64) -> Value {
    let bytes = cents.to_be_bytes();
    let fill = if cents < 0 { 0xFF } else { 0 };
    // A leading byte can go while the next one has the same sign.
    let redundant = bytes.windows(2).take_while(|w| w[0] == fill && (w[1] ^ fill) & 0x80 == 0).count();
    Value::Bytes(Bytes::copy_from_slice(&bytes[redundant..]))
}

fn schema() -> SchemaRef {
    let of = |ty| Schema::new(ty).shared();
    let decimal = logical::decimal_schema(2).shared();
    let string = of(Type::String);
    let item = vec![
        Field::new("article", SchemaRef::clone(&string)),
        Field::new("quantity", of(Type::Int32)),
        Field::new("price", SchemaRef::clone(&decimal)),
    ];
    let item = Schema::structure("aqueduct.datagen.Item", item).shared();
    let fields = FIELDS.iter().map(|&name| {
        let schema = match name {
            "id" => of(Type::Int64),
            "amount" => SchemaRef::clone(&decimal),
            "created_at" => Schema::new(Type::Int64).named(logical::TIMESTAMP).versioned(1).shared(),
            "items" => of(Type::Array(SchemaRef::clone(&item))),
            _ => SchemaRef::clone(&string),
        };
        Field::new(name, schema)
    });
    Schema::structure("aqueduct.datagen.Order", fields.collect()).shared()
}

/// SplitMix64: small, and good enough to look random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use aqueduct_core::{Datum, json};

    use super::*;

    #[test]
    fn an_order_depends_on_seed_and_number_alone() {
        let orders = Orders::new(7);
        assert_eq!(orders.order(12), Orders::new(7).order(12));
        assert_ne!(orders.order(12), orders.order(13));
        assert_ne!(orders.order(12), Orders::new(8).order(12));
    }

    #[test]
    fn orders_match_their_schema_and_round_trip_as_json() {
        let orders = Orders::new(0);
        for n in 0..200 {
            let value = orders.order(n);
            let datum = Datum::new(SchemaRef::clone(orders.schema()), value.clone());
            let text = datum.to_json().expect("it matches its schema");
            assert_eq!(json::decode(&text, Some(orders.schema())).expect("it decodes"), value);
        }
    }

    #[test]
    fn every_status_appears() {
        let orders = Orders::new(1);
        let mut count = std::collections::BTreeMap::new();
        for n in 0..1000 {
            let Value::Struct(fields) = orders.order(n) else { panic!("a struct") };
            *count.entry(fields[6].as_str().expect("text").to_owned()).or_insert(0) += 1;
        }
        assert_eq!(count.keys().collect::<Vec<_>>(), ["cancelled", "paid", "pending"]);
        assert!(count["paid"] > 600);
    }

    #[test]
    fn decimals_are_as_short_as_big_integers_write_them() {
        for amount in [0, 1, 127, 128, 255, 256, 32_767, 32_768, -1, -128, -129, i64::MAX, i64::MIN] {
            let Value::Bytes(bytes) = cents(amount) else { panic!("bytes") };
            let expect = logical::decimal_bytes(&amount.to_string(), 0).expect("a number");
            assert_eq!(bytes, expect, "{amount}");
        }
    }
}
