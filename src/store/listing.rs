//! Calls that a reader of the API may see. Condemned and erased calls are left out. The total respects every filter.

use jiff::Timestamp;
use sqlx::FromRow;

use super::record::CallRow;
use super::{CallRecord, Store, StoreError, on_pool, to_ms};
use crate::domain::quality::Flag;
use crate::domain::{Outcome, SourceName};

/// The filters of a request and the limits of its key.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Only calls of these organisations (the platform's ids): the key's and the requested one. Two different ids match
    /// no call.
    pub organizations: [Option<String>; 2],
    /// Only calls with a term that ends after this time.
    pub unexpired_at: Option<Timestamp>,
    pub status: Option<String>,
    pub direction: Option<String>,
    pub agent_id: Option<String>,
    pub phone_number_id: Option<String>,
    pub source: Option<SourceName>,
    pub outcome: Option<Outcome>,
    pub flag: Option<Flag>,
    /// The call ended at this time or later. Without a known end, the first sight counts.
    pub from: Option<Timestamp>,
    /// The call ended before this time.
    pub to: Option<Timestamp>,
}

/// A listed call.
#[derive(Debug, Clone)]
pub struct Listed {
    pub record: CallRecord,
    /// The first [`EXCERPT`] characters of the newest transcript, and one more character if the text continues.
    pub excerpt: Option<String>,
}

/// Characters of a transcript shown in a list.
pub const EXCERPT: usize = 80;

#[derive(Debug, FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    row: CallRow,
    excerpt: Option<String>,
}

/// SQL: a member of the call's JSON.
macro_rules! member {
    (sqlite, $name:literal) => {
        concat!("json_extract(call_json, '$.", $name, "')")
    };
    (postgres, $name:literal) => {
        concat!("(call_json::json ->> '", $name, "')")
    };
}

macro_rules! listing {
    ($engine:ident, $select:literal, $rest:literal) => {
        concat!(
            $select,
            " FROM call_record c WHERE retention_state = 'active' AND ($1 IS NULL OR org_id = $1) \
             AND ($2 IS NULL OR org_id = $2) AND ($3 IS NULL OR retain_until > $3) AND ($4 IS NULL OR status = $4) \
             AND ($5 IS NULL OR direction = $5) AND ($6 IS NULL OR ",
            member!($engine, "agent_id"),
            " = $6) AND ($7 IS NULL OR ",
            member!($engine, "phone_number_id"),
            " = $7) AND ($8 IS NULL OR COALESCE(ended_at, first_seen_at) >= $8) \
             AND ($9 IS NULL OR COALESCE(ended_at, first_seen_at) < $9) AND ($10 IS NULL OR source = $10) \
             AND ($11 IS NULL OR outcome = $11) AND ($12 IS NULL OR flags_json LIKE '%\"' || $12 || '\"%') ",
            $rest
        )
    };
}

macro_rules! page {
    ($engine:ident) => {
        // 81 is `EXCERPT` plus one.
        listing!(
            $engine,
            "SELECT c.*, (SELECT substr(t.text, 1, 81) FROM transcript t \
             WHERE t.call_uid = c.uid AND t.version = c.transcript_version) AS excerpt",
            "ORDER BY COALESCE(ended_at, first_seen_at) DESC, uid DESC LIMIT $13 OFFSET $14"
        )
    };
}

macro_rules! count {
    ($engine:ident) => {
        listing!($engine, "SELECT COUNT(*)", "")
    };
}

macro_rules! bound {
    ($query:expr, $listing:expr) => {
        $query
            .bind($listing.organizations[0].as_deref())
            .bind($listing.organizations[1].as_deref())
            .bind($listing.unexpired_at.map(to_ms))
            .bind($listing.status.as_deref())
            .bind($listing.direction.as_deref())
            .bind($listing.agent_id.as_deref())
            .bind($listing.phone_number_id.as_deref())
            .bind($listing.from.map(to_ms))
            .bind($listing.to.map(to_ms))
            .bind($listing.source.as_ref().map(SourceName::as_str))
            .bind($listing.outcome.map(Outcome::as_str))
            .bind($listing.flag.map(Flag::as_str))
    };
}

impl Store {
    /// A page of the listing, newest end first.
    pub async fn listed(&self, listing: &Listing, limit: u64, offset: u64) -> Result<Vec<Listed>, StoreError> {
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (limit, offset) = (whole(limit), whole(offset));
        let page = self.db.sql(page!(sqlite), page!(postgres));
        let rows: Vec<ListedRow> = on_pool!(&self.db, |pool| bound!(sqlx::query_as(page), listing)
            .bind(limit)
            .bind(offset)
            .fetch_all(pool)
            .await?);
        let read = |listed: ListedRow| Ok(Listed { record: listed.row.into_record()?, excerpt: listed.excerpt });
        rows.into_iter().map(read).collect()
    }

    /// The number of calls in the whole listing.
    pub async fn count_listed(&self, listing: &Listing) -> Result<u64, StoreError> {
        let count = self.db.sql(count!(sqlite), count!(postgres));
        let count: i64 = on_pool!(&self.db, |pool| bound!(sqlx::query_scalar(count), listing).fetch_one(pool).await?);
        Ok(count as u64)
    }
}
