-- One row per payment; the amount in whole millionths and its square in whole hundredths, so that sums do not depend
-- on the order of addition.
SELECT
    event_id,
    event_us AS us,
    CASE WHEN arrived_us > event_us + 172800000000 THEN arrived_us ELSE event_us END AS known_us,
    account_id,
    card_id,
    merchant_id,
    CAST(floor(amount * 1000000 + 0.5) AS BIGINT) AS amount_micros,
    CAST(floor(amount * amount * 100 + 0.5) AS BIGINT) AS amount_square
FROM payments
