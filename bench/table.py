"""The table that all contestants read: 12 columns of parcel tracking."""

from tests.rigs.postgres import PostgresRig

COLUMNS = "barcode, trkdate, operator, msgtype, causal, arrivetimestamp, status, track_office, mtf_mtfid, importo, canale, custcode"
QUERY = f"SELECT {COLUMNS} FROM export_table"


def make_table(postgres: PostgresRig, rows: int) -> None:
    with postgres.connect() as connection:
        # Without it a scan begins where another one is, and each contestant reads the rows in another order.
        connection.execute("ALTER ROLE CURRENT_USER SET synchronize_seqscans = off")
        connection.execute("DROP TABLE IF EXISTS export_table")
        connection.execute(
            """CREATE TABLE export_table AS SELECT
                 lpad((572680000000 + g)::text, 12, '0') AS barcode, date '2026-01-16' AS trkdate,
                 (g % 999)::int AS operator, 'M3'::varchar(2) AS msgtype, 'RKE'::varchar(3) AS causal,
                 timestamp '2026-01-16' + g * interval '81234 microseconds' AS arrivetimestamp,
                 'N'::varchar(1) AS status, (38000 + g % 900)::text AS track_office, (g % 97)::bigint AS mtf_mtfid,
                 (g % 100000 / 100.0)::numeric(12, 2) AS importo,
                 CASE WHEN g % 5 = 0 THEN NULL ELSE 'SGU' END AS canale,
                 lpad((30526661 + g % 1000)::text, 10, '0') AS custcode
               FROM generate_series(1, %s) AS g""".replace("%s", str(int(rows)))
        )
        connection.execute("VACUUM ANALYZE export_table")
