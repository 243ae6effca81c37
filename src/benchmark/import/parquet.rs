//! Parquet, as Hugging Face's data sets have it: rows without the bytes of sounds.

use super::row::{Place, Row, Rows, MOST_ROWS};
use crate::error::{Error, Result};
use crate::fsutil::open_regular;
use crate::panics::caught;
use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::Field;
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// What every such file begins and ends with.
pub(super) const MAGIC: &[u8] = b"PAR1";
/// Of texts and numbers, unpacked.
const MOST_BYTES: i64 = 1 << 30;

/// Reads a file's rows.
///
/// # Errors
/// What is no such file, or is larger than a benchmark's texts are.
pub(super) fn read(path: &Path) -> Result<Rows> {
    let wrong = |found: String| {
        let e = Error::data(path, "file", "Parquet", found);
        e.hint("or write its rows as JSON lines: python -c \"import pandas as p; p.read_parquet('FILE').to_json('rows.jsonl', orient='records', lines=True)\"")
    };
    let file = open_regular(path)?;
    // The reader indexes by what a file says of itself.
    match caught(|| rows(path, file)) {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(why)) | Err(why) => Err(wrong(why)),
    }
}

fn rows(path: &Path, file: std::fs::File) -> std::result::Result<Rows, String> {
    let words = |e: parquet::errors::ParquetError| e.to_string();
    let reader = SerializedFileReader::new(file).map_err(words)?;
    let meta = reader.metadata();
    let schema = meta.file_metadata().schema();
    let Some(texts) = without_bytes(schema)? else {
        return Err("no column but bytes".into());
    };
    let wanted = parquet::schema::types::SchemaDescriptor::new(texts.clone());
    let wanted: std::collections::HashSet<String> =
        wanted.columns().iter().map(|c| c.path().string()).collect();
    let (mut bytes, mut count) = (0i64, 0i64);
    for group in meta.row_groups() {
        count = count.saturating_add(group.num_rows());
        for column in group
            .columns()
            .iter()
            .filter(|c| wanted.contains(&c.column_path().string()))
        {
            bytes = bytes.saturating_add(column.uncompressed_size());
        }
    }
    if bytes > MOST_BYTES || count > MOST_ROWS as i64 {
        return Err(format!(
            "{count} rows with {bytes} bytes of text; a benchmark has at most {MOST_ROWS} and {MOST_BYTES}"
        ));
    }
    let place: Arc<Path> = path.into();
    let mut rows = Vec::new();
    for (i, row) in RowIter::from_file(Some(texts.as_ref().clone()), &reader)
        .map_err(words)?
        .enumerate()
    {
        let fields = row.map_err(words)?.into_columns();
        rows.push(Row {
            place: Place {
                file: place.clone(),
                at: format!("row {}", i + 1),
            },
            key: None,
            fields: fields
                .into_iter()
                .map(|(name, field)| (name, value(field)))
                .collect(),
        });
    }
    if rows.is_empty() {
        return Err("no row".into());
    }
    let beside = Map::new();
    Ok(Rows { rows, beside })
}

/// A group of columns without those that are bytes and no text; none where nothing is left.
fn without_bytes(group: &Type) -> std::result::Result<Option<TypePtr>, String> {
    let mut fields = Vec::new();
    for field in group.get_fields() {
        if field.is_group() {
            fields.extend(without_bytes(field)?);
            continue;
        }
        let info = field.get_basic_info();
        let text = matches!(
            info.converted_type(),
            ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM
        ) || matches!(
            info.logical_type_ref(),
            Some(LogicalType::String | LogicalType::Json | LogicalType::Enum)
        );
        match field.get_physical_type() {
            Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY if !text => {}
            _ => fields.push(field.clone()),
        }
    }
    if fields.is_empty() {
        return Ok(None);
    }
    let info = group.get_basic_info();
    let mut new = Type::group_type_builder(info.name())
        .with_fields(fields)
        .with_converted_type(info.converted_type())
        .with_logical_type(info.logical_type_ref().cloned());
    if info.has_repetition() {
        new = new.with_repetition(info.repetition());
    }
    new.build().map(|t| Some(Arc::new(t))).map_err(|e| e.to_string())
}

/// A value as JSON has it; what JSON has not is null.
fn value(field: Field) -> Value {
    match field {
        Field::Bool(v) => v.into(),
        Field::Byte(v) => v.into(),
        Field::Short(v) => v.into(),
        Field::Int(v) | Field::Date(v) | Field::TimeMillis(v) => v.into(),
        Field::Long(v) | Field::TimeMicros(v) | Field::TimestampMillis(v) | Field::TimestampMicros(v) => {
            v.into()
        }
        Field::UByte(v) => v.into(),
        Field::UShort(v) => v.into(),
        Field::UInt(v) => v.into(),
        Field::ULong(v) => v.into(),
        Field::Float(v) => f64::from(v).into(),
        Field::Double(v) => v.into(),
        Field::Str(v) => v.into(),
        Field::Group(row) => row
            .into_columns()
            .into_iter()
            .map(|(k, v)| (k, value(v)))
            .collect::<Map<_, _>>()
            .into(),
        Field::ListInternal(list) => list
            .elements()
            .iter()
            .cloned()
            .map(value)
            .collect::<Vec<_>>()
            .into(),
        Field::MapInternal(map) => {
            let pair = |(k, v): &(Field, Field)| match value(k.clone()) {
                Value::String(k) => (k, value(v.clone())),
                k => (k.to_string(), value(v.clone())),
            };
            map.entries().iter().map(pair).collect::<Map<_, _>>().into()
        }
        _ => Value::Null,
    }
}
