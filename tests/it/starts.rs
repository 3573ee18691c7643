//! How processes start: many at once on an empty database, beside a newer or an older schema, on a database that cannot
//! be written or is not there, behind a pooler.

mod away;
mod pooler;
mod reading;
mod together;
