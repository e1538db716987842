"""What the intrinsic dimension is measured of: shuffled images, LeNets, every option."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.intrinsic_dimension import get_config
from experiments import data, models
from experiments import intrinsic_dimension as experiment
from experiments import intrinsic_problems as problems
from subspace_jax import tree


def split(num=200):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(2, num, 4, 3)).astype(np.float32)
    return data.Split(images[0], np.arange(num) % 10, images[1], np.arange(num) % 7)


def test_one_permutation_moves_the_pixels_of_all_images():
    config = get_config("shuffled_pixels")
    before, after = split(), problems.shuffled(config, split())
    order = [
        np.flatnonzero(before.train_x[0].ravel() == value)[0] for value in after.train_x[0].ravel()
    ]
    assert sorted(order) == list(range(12))
    assert order != sorted(order)
    for name in ("train_x", "test_x"):
        flat = getattr(before, name).reshape(200, 12)
        np.testing.assert_array_equal(getattr(after, name).reshape(200, 12), flat[:, order])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_that_share_of_the_training_labels_is_random(share):
    config = get_config(f"shuffled_labels={share}")
    before, after = split(20_000), problems.shuffled(config, split(20_000))
    changed = np.mean(before.train_y != after.train_y)
    assert changed == pytest.approx(0.9 * share, abs=0.01)  # a tenth draws the label it had
    np.testing.assert_array_equal(after.test_y, before.test_y)
    np.testing.assert_array_equal(np.unique(after.train_y), np.arange(10))


def test_lenet_has_the_papers_size():
    params = jax.eval_shape(models.LeNet(10).init, jax.random.key(0), jnp.zeros((1, 28, 28)))
    assert tree.size(params) == 44_426


def test_lenet_without_shared_weights_is_lenet_where_they_are_the_same_everywhere():
    x = np.random.default_rng(0).normal(size=(3, 28, 28)).astype(np.float32)
    shared, untied = models.LeNet(10), models.LeNet(10, "untied")
    params = shared.init(jax.random.key(0), x)["params"]
    copies = {"MLP_0": params["MLP_0"]}
    for i, (width, side) in enumerate([(6, 24), (16, 8)]):
        for name in ("kernel", "bias"):
            leaf = params[f"Dense_{i}"][name]
            copies[f"untied_{width}_{name}"] = jnp.broadcast_to(leaf, (side, side, *leaf.shape))
    shapes = jax.tree.map(jnp.shape, untied.init(jax.random.key(0), x)["params"])
    assert jax.tree.map(jnp.shape, copies) == shapes
    np.testing.assert_allclose(
        untied.apply({"params": copies}, x), shared.apply({"params": params}, x), atol=1e-5
    )
    dense = jax.eval_shape(models.LeNet(10, "dense").init, jax.random.key(0), x)
    # 784 x 3456 and 864 x 1024 with biases, then the three dense layers.
    assert tree.size(dense) == 784 * 3456 + 3456 + 864 * 1024 + 1024 + 41_854


def test_windows_times_a_matrix_are_a_convolution():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 9, 8, 3)), rng.normal(size=(5, 5, 3, 4))
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = models.windows(jnp.asarray(x), 5) @ kernel.reshape(-1, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


OPTIONS = {
    "cartpole": "CartPole by evolution strategies",
    "pendulum": "Pendulum by evolution strategies",
    "q_learning": "CartPole by Q-learning",
    "shuffled_pixels": "digits, pixels shuffled",
    "shuffled_labels=0.5": "digits, 50% of labels random",
    "lenet": "mnist5k",
    "untied_lenet": "mnist5k",
    "dense_lenet": "mnist5k",
    "width=3,depth=4": "digits",
}


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_every_problem_is_swept(option, tmp_path):
    config = get_config(f"smoke,{option}")
    config.update(dims=(2, 9), num_bootstrap=5, num_steps=10, log_every=10, checkpoint_every=10)
    results = experiment.run(config, tmp_path)
    assert np.shape(results["score"]) == (2, 2)
    assert np.all(np.array([*results["score"], results["direct_score"]]) >= 0)
    assert results["summary"].startswith(OPTIONS[option])


def test_the_options_are_the_papers():
    assert get_config("width=50,depth=5").hidden == (50,) * 5
    assert get_config("fashion").data == "fashion_mnist"
    assert get_config("lenet").problem == "lenet"
    assert get_config("lenet,mnist").data == "mnist"
    assert get_config("cartpole").hidden == (64, 64)
    assert get_config("game=Asterix-MinAtar").environment == "gymnax/Asterix-MinAtar"
    assert get_config("untied_lenet,fashion").problem == "untied_lenet"
    with pytest.raises(ValueError, match="choose one"):
        get_config("fashion,toy")
    with pytest.raises(ValueError, match="choose one"):
        get_config("lenet,dense_lenet")


def test_the_authors_curve_is_of_their_network_and_images_alone():
    assert set(problems.authors(get_config())) == set(problems.authors(get_config("mnist")))
    for other in ("fashion", "mnist,width=100", "mnist,shuffled_labels=.5", "lenet", "toy"):
        assert problems.authors(get_config(other)) == {}, other


def test_the_papers_settings_are_thirty_dims_and_need_all_of_mnist():
    config = get_config("mnist,paper")
    assert len(config.dims) == 30
    assert (config.num_seeds, config.beta2, config.l2) == (3, 0.99, 1e-5)
    with pytest.raises(ValueError, match="paper goes with mnist"):
        get_config("paper")
