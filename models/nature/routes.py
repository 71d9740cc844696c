"""Where simulated aircraft and ships move: real airports and usual sea lanes (latitude, longitude in degrees)."""

HUBS: dict[str, tuple[float, float]] = {
    "ATL": (33.64, -84.43), "ORD": (41.98, -87.90), "LAX": (33.94, -118.41), "JFK": (40.64, -73.78),
    "DFW": (32.90, -97.04), "SEA": (47.45, -122.31), "ANC": (61.17, -149.99), "HNL": (21.32, -157.92),
    "MEX": (19.44, -99.07), "BOG": (4.70, -74.15), "GRU": (-23.44, -46.47), "EZE": (-34.82, -58.54),
    "SCL": (-33.39, -70.79), "LHR": (51.47, -0.45), "FRA": (50.03, 8.57), "MAD": (40.47, -3.56),
    "IST": (41.26, 28.74), "SVO": (55.97, 37.41), "DXB": (25.25, 55.36), "ADD": (8.98, 38.80),
    "JNB": (-26.14, 28.25), "LOS": (6.58, 3.32), "DEL": (28.57, 77.10), "BKK": (13.69, 100.75),
    "SIN": (1.36, 103.99), "HKG": (22.31, 113.91), "PVG": (31.14, 121.81), "HND": (35.55, 139.78),
    "SYD": (-33.95, 151.18), "PER": (-31.94, 115.97), "AKL": (-37.01, 174.79), "KEF": (63.99, -22.61),
}  # fmt: skip

SEA_LANES: tuple[tuple[tuple[float, float], tuple[float, float]], ...] = (
    ((40.3, -70.0), (49.5, -7.0)),  # New York - Channel
    ((25.0, -78.0), (36.0, -8.0)),  # Florida - Gibraltar
    ((-23.5, -43.0), (14.5, -19.0)),  # Rio - Dakar
    ((-35.5, 17.0), (14.0, -19.5)),  # Cape Town - Dakar
    ((-35.5, -54.0), (-35.0, 17.0)),  # River Plate - Cape Town
    ((-34.5, 29.0), (-32.5, 114.5)),  # Durban - Fremantle
    ((12.0, 52.0), (6.0, 79.0)),  # Aden - Colombo
    ((6.0, 81.0), (6.0, 95.0)),  # Colombo - Malacca
    ((5.0, 107.0), (21.5, 114.5)),  # Singapore - Hong Kong
    ((34.5, 141.0), (48.0, -126.0)),  # Tokyo - Vancouver
    ((34.0, 141.0), (33.5, -119.0)),  # Tokyo - Los Angeles
    ((33.0, -119.5), (21.0, -157.0)),  # Los Angeles - Honolulu
    ((20.5, -159.0), (-16.5, 178.5)),  # Honolulu - Fiji
    ((-36.5, 176.0), (-12.5, -78.0)),  # Auckland - Callao
    ((-38.0, 151.0), (-41.0, 173.0)),  # Sydney - Wellington
    ((7.0, -80.5), (-16.5, -150.0)),  # Panama - Tahiti
    ((-56.5, -67.0), (-60.0, -30.0)),  # Cape Horn - Scotia Sea
    ((58.0, -6.5), (69.0, 10.0)),  # Minch - Lofoten
)
