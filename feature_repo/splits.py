"""Splits by time and by entity, made once, when a training set is written, and stored in it.

Of the events without a published split, the earliest 60 % are for training, then 10 % for validation, 15 % for
calibration (thresholds) and the last 15 % for the test. A fifth of the accounts, chosen by a hash, is never trained on,
so that the test also shows accounts that the detector has not met (`entity_seen`). A published validation split is
halved by a hash, one half validates and the other calibrates, unless a split for calibration is published too. An event
whose labels are published in several splits is in the most protected one.
"""

# md5_number_lower is the same on any machine and version, unlike DuckDB's own hash()
SPLIT_SQL = """
    WITH rows AS ({rows}),
    placed AS (
        SELECT *, percent_rank() OVER (PARTITION BY published_split IS NULL ORDER BY event_us, event_id) AS place,
               account_id IS NOT NULL AND md5_number_lower(account_id) % 5 = 0 AS is_held_out
        FROM rows
    ),
    split AS (
        SELECT * EXCLUDE (place, is_held_out, published_split),
               CASE WHEN published_split = 'validation' AND md5_number_lower(event_id) % 2 = 0
                         AND NOT EXISTS (SELECT 1 FROM rows WHERE published_split = 'calibration') THEN 'calibration'
                    WHEN published_split IS NOT NULL THEN published_split
                    WHEN place < 0.6 THEN CASE WHEN is_held_out THEN NULL ELSE 'train' END
                    WHEN place < 0.7 THEN 'validation'
                    WHEN place < 0.85 THEN 'calibration'
                    ELSE 'test' END AS split
        FROM placed
    )
    SELECT *, CASE WHEN account_id IS NULL THEN 'none'
                   WHEN account_id IN (SELECT account_id FROM split WHERE split = 'train') THEN 'seen'
                   ELSE 'unseen' END AS entity_seen
    FROM split WHERE split IS NOT NULL
    ORDER BY event_us, event_id
"""
