"""Small networks of the digits, trained and saved by Keras on TensorFlow, and exported to ONNX by tf2onnx.

``python -m benchmarks.recipes.make_keras FOLDER [NAME ...]`` needs tensorflow, tf2onnx and scikit-learn,
and nothing of slth. Beside each file NAME.ext stands NAME.outputs.npz, what Keras computes from the
images in it.
"""

import sys
from pathlib import Path

import keras
import tensorflow as tf
import tf2onnx
from keras import layers

from benchmarks.recipes import digits


def separable(x):
    """MobileNet: depthwise and 1x1 convolutions, batch norm, ReLU6."""
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    for width, stride in ((24, 2), (32, 1), (32, 2)):
        x = layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
        x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(width, 1, use_bias=False)(x)))
    return layers.GlobalAveragePooling2D()(x)


def dense_block(x):
    """DenseNet: batch norm before the convolutions, concatenation, a transition."""
    x = layers.Conv2D(12, 3, padding="same")(x)
    for block in range(2):
        for _ in range(3):
            y = layers.Conv2D(8, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
            x = layers.Concatenate()([x, y])
        if block == 0:
            x = layers.AveragePooling2D(2)(
                layers.Conv2D(18, 1)(layers.ReLU()(layers.BatchNormalization()(x)))
            )
    return layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))


def inception(x):
    """Inception: four branches, one of them a mean of neighbours; global maximum."""
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    for width in (6, 8):
        sides = [
            layers.Conv2D(width, 1, activation="relu")(x),
            layers.Conv2D(width, 3, padding="same", activation="relu")(
                layers.Conv2D(width, 1, activation="relu")(x)
            ),
            layers.Conv2D(width, 5, padding="same", activation="relu")(
                layers.Conv2D(width, 1, activation="relu")(x)
            ),
            layers.Conv2D(width, 1, activation="relu")(layers.AveragePooling2D(3, 1, "same")(x)),
        ]
        x = layers.MaxPooling2D(2)(layers.Concatenate()(sides))
    return layers.GlobalMaxPooling2D()(x)


def hard_swish(x):
    """MobileNetV3 without its gates: hard swish, residuals of depthwise convolutions."""
    x = layers.Activation("hard_silu")(layers.Conv2D(16, 3, padding="same")(x))
    for _ in range(2):
        y = layers.Activation("hard_silu")(layers.Conv2D(32, 1)(x))
        y = layers.Activation("hard_silu")(layers.DepthwiseConv2D(3, padding="same")(y))
        x = layers.Add()([x, layers.Conv2D(16, 1)(y)])
    return layers.Flatten()(layers.MaxPooling2D(2)(x))


def sound(x):
    """M5: one-dimensional, of the 64 pixels in a row; leaky ReLU."""
    for width, taps, stride in ((16, 9, 2), (24, 3, 1), (32, 3, 1)):
        x = layers.Conv1D(width, taps, stride, "same")(x)
        x = layers.MaxPooling1D(2)(layers.LeakyReLU(0.1)(layers.BatchNormalization()(x)))
    return layers.GlobalAveragePooling1D()(x)


def wide(x):
    """Wide ResNet: batch norm and SiLU before each convolution, dropout."""
    x = layers.Conv2D(12, 3, padding="same")(x)
    for width, stride in ((12, 1), (24, 2)):
        y = layers.Activation("silu")(layers.BatchNormalization()(x))
        y = layers.Conv2D(width, 3, stride, "same")(y)
        y = layers.Dropout(0.1)(layers.Activation("silu")(layers.BatchNormalization()(y)))
        y = layers.Conv2D(width, 3, padding="same")(y)
        x = layers.Add()([y, x if stride == 1 else layers.Conv2D(width, 1, stride)(x)])
    return layers.GlobalAveragePooling2D()(layers.Activation("silu")(layers.BatchNormalization()(x)))


def parametric(x):
    """PReLU of each channel, after it batch norm."""
    for width in (12, 16):
        x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(width, 3, padding="same")(x))
        x = layers.MaxPooling2D(2)(layers.BatchNormalization()(x))
    return layers.PReLU()(layers.Dense(32)(layers.Flatten()(x)))


def gates(x):
    """Squeeze and excitation: a product of two values."""
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    y = layers.Dense(16, "sigmoid")(layers.Dense(4, "relu")(layers.GlobalAveragePooling2D()(x)))
    return layers.GlobalAveragePooling2D()(layers.Multiply()([x, layers.Reshape((1, 1, 16))(y)]))


NETS = {  # the last words: files
    "keras_separable": (separable, "softmax", ("onnx11",)),
    "keras_dense_block": (dense_block, None, ("onnx18", "keras")),
    "keras_inception": (inception, None, ("onnx15",)),
    "keras_hard_swish": (hard_swish, None, ("onnx13",)),
    "keras_sound": (sound, None, ("onnx17",)),
    "keras_wide": (wide, None, ("keras",)),
    "keras_parametric": (parametric, None, ("h5", "onnx9")),
    "keras_gates": (gates, None, ("onnx14",)),
}


def main() -> None:
    """Train and write all of them."""
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    x, x_test, y, y_test = digits.split()
    for name, (body, last, files) in NETS.items():
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        keras.utils.set_random_seed(0)
        shape = (64, 1) if body is sound else (8, 8, 1)
        x, x_test = x.reshape(-1, *shape), x_test.reshape(-1, *shape)
        given = layers.Input(shape, name="images")
        model = keras.Model(given, layers.Dense(10, last)(body(given)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=last is None)
        model.compile("adam", loss)
        model.fit(x, y, 32, 25, verbose=0)
        outputs = model(x_test, training=False).numpy()
        digits.store(folder, name, x, x_test, outputs, y_test)
        for kind in files:
            if kind.startswith("onnx"):
                opset = int(kind[4:])
                signature = [tf.TensorSpec((None, *shape), name="images")]
                function = tf.function(lambda v, model=model: model(v, training=False), signature)
                tf2onnx.convert.from_function(
                    function, signature, opset=opset, output_path=str(folder / f"{name}.onnx")
                )
            else:
                model.save(folder / f"{name}.{kind}")


if __name__ == "__main__":
    main()
