"""The rerun of a cycle of the real model as known at a time: the same numbers to the bit, whatever came since."""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xarray as xr

from alignda.demo.scenario import Scenario
from models.bundle import SHIPPED
from service.archive import Archive
from service.catalogue import Catalogue
from service.experiments import ExperimentConfig
from service.observations.table import columns_to_table
from service.settings import Settings
from tests.worker.conftest import House
from worker.model import BundleModel
from worker.runtime import Runtime


@pytest.mark.slow
def test_late_reports_change_no_bit_of_a_rerun_as_known_before_them(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", bundle=SHIPPED)
    settings.data_dir.mkdir(parents=True)
    catalogue, archive, model = (
        Catalogue.open(settings.catalogue_url),
        Archive(settings.archive_dir),
        BundleModel(SHIPPED, "cpu"),
    )
    house = House(settings, Runtime(settings, catalogue, archive, lambda folder, device: model), [])
    scenario = Scenario(SHIPPED)
    (valid_time,) = scenario.cycle_times(1)
    reports = columns_to_table(scenario.network.observe(scenario.truth, valid_time))
    known = valid_time + timedelta(hours=3)
    in_time = pc.less_equal(reports.column("receipt_time"), pa.scalar(known, reports.schema.field("receipt_time").type))
    late = reports.filter(pc.invert(in_time))
    assert late.num_rows > 100

    def members(name: str, as_known: bool) -> dict[str, bytes]:
        config = ExperimentConfig(members=3, sampler_steps=3, forecast_hours=6).model_dump(mode="json")
        experiment = catalogue.experiments.create(name, config, SHIPPED.name)
        cycle = house.run(
            catalogue.cycles.accept(experiment.id, valid_time, seed=3, as_of=known if as_known else None)[0]
        )
        product = catalogue.products.find(cycle.id, "members", "netcdf")
        assert product is not None, cycle.error
        with xr.open_dataset(archive.existing(product.path)) as analysis:
            return {str(field): values.values.tobytes() for field, values in analysis.data_vars.items()}

    house.post(reports.filter(in_time))
    before = members("before", as_known=True)
    house.post(late)
    assert members("again", as_known=True) == before
    assert members("now", as_known=False) != before
    catalogue.close()
