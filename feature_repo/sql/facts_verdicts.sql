-- One row per fraud verdict on a payment, at the moment it became known: never at the moment of the payment. Whose
-- payment came later still, and late, counts from then on.
-- A verdict that took more than 90 days is not counted, which bounds the days that have to be read.
-- Whoever says the same of a payment at the same moment adds nothing; at another moment it is one more verdict.
SELECT DISTINCT
    labels.event_id,
    labels.known_us AS us,
    greatest(
        labels.known_us,
        CASE
            WHEN payments.arrived_us > payments.event_us + 172800000000 THEN payments.arrived_us ELSE payments.event_us
        END
    ) AS known_us,
    payments.merchant_id,
    CAST(labels.value AS BIGINT) AS is_fraud,
    CAST(floor(payments.amount * 1000000 + 0.5) AS BIGINT) AS amount_micros
FROM labels
INNER JOIN payments ON labels.event_id = payments.event_id
WHERE labels.event_table = 'payments'
    AND labels.label = 'fraud'
    AND labels.known_us <= labels.event_us + 7776000000000
