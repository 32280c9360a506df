"""Checks that this module works with the GNU Radio that it is built for; the thorough tests are in ../tests."""

from gnuradio import gr_unittest, massaccess


class QaMassaccess(gr_unittest.TestCase):
    def uplink(self, seed):
        from massaccess import SystemConfig

        config = SystemConfig(users=16, rows=4, columns=4, pilot_len=12, data_len=20, channel="rayleigh", snr_db=20.0)
        tb = massaccess.uplink(config, "covariance+lmmse-lmmse", seed=seed, frames=40, threads=1)
        massaccess.run(tb)
        return tb

    def test_every_block_is_there(self):
        assert all(callable(getattr(massaccess, name)) for name in massaccess.BLOCKS)

    def test_an_uplink_is_received(self):
        tb = self.uplink(seed=1)
        assert tb.meter.summary()["compared"] == 40
        assert tb.meter.summary()["aep"] < 0.05
        assert tb.receiver.digest() == self.uplink(seed=1).receiver.digest()


if __name__ == "__main__":
    gr_unittest.run(QaMassaccess)
