//! Rust values as PostgreSQL columns.

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

pub(super) use crate::store::stored::*;

/// A JSON text as `jsonb` (binary format: a version byte and the text).
#[derive(Debug)]
pub(super) struct Jsonb<'a>(pub(super) &'a str);

impl ToSql for Jsonb<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_u8(1);
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(column: &Type) -> bool {
        *column == Type::JSONB
    }

    to_sql_checked!();
}

/// JSON text that was made for this statement.
#[derive(Debug)]
pub(super) struct OwnedJsonb(pub(super) String);

impl ToSql for OwnedJsonb {
    fn to_sql(
        &self,
        column: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Jsonb(&self.0).to_sql(column, out)
    }

    fn accepts(column: &Type) -> bool {
        Jsonb::accepts(column)
    }

    to_sql_checked!();
}
