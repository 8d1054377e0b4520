"""Classify images with prompts on a frozen CLIP: fit, predict, save, load, in scikit-learn's manner.

Prompts tuned on one list of classes serve any other list; only class-specific contexts do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multimodal.data.inputs import as_names, as_pictures, label_list, label_numbers
from multimodal.estimator import Estimator
from multimodal.heads.answer import Answer
from multimodal.prompts import folder as prompt_folder
from multimodal.prompts.contexts import Classes, logits, still
from multimodal.prompts.methods import Method, build_method
from multimodal.prompts.teacher import Teacher
from multimodal.towers.clip import Clip, load_clip, reload_clip
from multimodal.training.settings import Settings
from multimodal.vectors.image_data import CachedImages, GivenFeatures
from multimodal.vectors.prediction import mixed, predict
from multimodal.vectors.prompted import PromptedTower, prompted
from multimodal.vectors.texts import finite
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.encoders import CHANGING
from retrieval_prompts.prompts.strength import checked

if TYPE_CHECKING:
    from multimodal.interop.live import LiveModel
    from multimodal.training.classes import OnStep

Floats = NDArray[np.float32]
Images = Sequence[Any] | NDArray | Tensor  # of what `data.inputs.KINDS` says
Positions = NDArray[np.int64]


class PromptClassifier(Estimator):
    """A frozen CLIP with tuned prompts.

    Args:
        clip: the frozen model, or what `load_clip` takes; None: the small CLIP that comes with this package.
        settings: a `Settings`, or leave it out and give its fields by name.

    Example:
        >>> classifier = PromptClassifier(method="coop").fit(paths, labels)  # doctest: +SKIP
        >>> classifier.predict(["a.jpg"])  # doctest: +SKIP
        array(['bicycle'], dtype='<U7')
    """

    def __init__(self, clip: Clip | str | None = None, settings: Settings | None = None, **given: Any) -> None:
        if settings is not None and given:
            raise UserError("give either settings or their fields by name, not both")
        self.clip = clip if isinstance(clip, Clip) else load_clip(clip)
        self.use_settings(settings or Settings.of(**given), given if settings is None else None)
        self.strength = 1.0
        self.temperature = 1.0
        self.classes: tuple[str, ...] = ()
        self.labels: tuple[int, ...] = ()  # of the classes, where fit was given whole numbers
        self.answer: Answer | None = None  # the head; None: the prompt answers for all classes
        self.training: dict[str, Any] = {}
        self._method: Method | None = None
        self._known: dict[tuple[str, ...], Classes] = {}
        self._texts: dict[tuple[str, ...], tuple[Any, Tensor]] = {}  # classes -> of what state, class vectors

    # ---- training

    def fit(
        self,
        pictures: Images,
        labels: Sequence[Any] | NDArray | None = None,
        classes: Sequence[str] | None = None,
        *,
        cache: Path | None = None,
        checkpoint: Path | None = None,
        on_step: OnStep | None = None,
    ) -> PromptClassifier:
        """Train new prompts on labelled images, and the head; the shots are the caller's choice.

        Args:
            pictures: paths, PIL images, bytes of files, or arrays and tensors of pixels.
            labels: the class name of each image; or whole numbers, which come back as such: positions in `classes`;
                or none, where the method learns without them (promptkd), and `classes` are given.
            classes: all names, in the order that probabilities are to have; None: those of the labels, sorted.
            cache: the folder of image features; None: the user's cache.
            checkpoint: a file from which an interrupted training goes on.
            on_step: called with each record and the number of all steps.

        Images that cannot be read are left out, counted and named in a DataWarning.

        Raises:
            UserError: for fewer than two classes, a label that is no class, and settings that the model cannot take.
        """
        from multimodal.training.classes import fit_classifier
        from multimodal.training.method_choice import settle

        why, parts = settle(self, pictures, labels, classes, cache)
        how: dict[str, Any] = {"cache": cache, "checkpoint": checkpoint, "on_step": on_step}
        fit_classifier(self, pictures, labels, classes, parts=parts, **how)
        if why:
            self.training["method"] = why
        return self

    def use(self, built: Method, known: Classes) -> None:
        """Take a method's prompts for these classes, at full strength, in the place of those before."""
        with CHANGING:
            self._known, self._texts = {known.names: known}, {}  # new ones: other threads may still fill the old
            self._method, self.classes, self.strength, self.temperature = built, known.names, 1.0, 1.0
            self.answer, self.labels = None, ()

    def without_head(self) -> PromptClassifier:
        """The same prompts, which answer for all classes."""
        other = copy(self)
        other.answer = None
        return other

    def read_as(self, known: Classes, strength: float) -> PromptClassifier:
        """The same prompts at another strength, for classes that were read already, and with no others kept."""
        other = copy(self)
        other.strength, other._known, other._texts = checked(strength), {known.names: known}, {}
        return other

    # ---- prediction

    @property
    def method(self) -> Method:
        if self._method is None:
            raise UserError("this classifier has no prompts yet: call fit, or PromptClassifier.load")
        return self._method

    @property
    def prompts_images(self) -> bool:
        """The prompts enter the image tower too: images are encoded anew, no cached feature serves."""
        return self.method.prompts_images

    def known_classes(self, classes: Sequence[str] | None = None) -> Classes:
        """The classes to tell apart; None: those of the training.

        Raises:
            UserError: where prompts serve no others.
        """
        if classes is None and self.method and not self.classes:
            raise UserError("these prompts were tuned on captions and have no classes of their own; give --classes")
        names = self.classes if classes is None else as_names(classes)
        if self.settings.class_specific and names != self.classes:
            raise UserError(
                "these prompts are class-specific: each belongs to one class of their training and serves no other "
                "list; tune shared prompts (without --class-specific) to use other classes"
            )
        if names not in self._known:
            self._known[names] = Classes(self.clip, names, self.settings)
        return self._known[names]

    @torch.no_grad()
    def class_vectors(self, classes: Sequence[str] | None = None) -> Tensor:
        """(C, D) of unit length: what an image's feature is compared with.

        Raises:
            UserError: where it depends on the image (CoCoOp).
        """
        with CHANGING:  # all of one moment: another thread may train
            known, strength, texts = self.known_classes(classes), self.strength, self._texts
            prompter = self.method.prompter
            state = (strength, [part._version for part in prompter.parameters()])  # counts changes
            before, found = texts.get(known.names, (None, None))
            if found is not None and before == state:
                return found
            prompts = still(prompter, known, torch.zeros(1, self.clip.dimension, device=self.clip.device))
        if strength == 0:
            found = known.frozen
        elif prompts.project and strength < 1:
            raise UserError("the class vectors of teacher and student cannot be mixed: use a strength of 0 or 1")
        elif prompts.per_image:
            raise UserError(
                f"{self.settings.method}'s class vectors depend on the image: there is no one matrix; use classify"
            )
        else:
            found = finite(mixed(known.frozen, known.features(prompts), strength))
        texts[known.names] = state, found
        return found

    @torch.no_grad()
    def logits(
        self, images: Images | GivenFeatures, classes: Sequence[str] | None = None, *, cache: Path | None = None
    ) -> Floats:
        """(n, C): known classes by the head, where there is one, others by the prompt; see `heads.answer`.

        Those of the prompt are cosines times the model's scale, divided by the temperature.

        Args:
            images: paths, PIL images, bytes of files, arrays and tensors of pixels; or their frozen features (n, D),
                where no prompt enters the image tower; or `GivenFeatures`.

        Raises:
            UserError: for an image that cannot be read.
        """
        with CHANGING:
            known, built, answer = self.known_classes(classes), self.method, self.answer
            strength, temperature, trained = self.strength, self.temperature, self.classes
        data, count = self._read(images, built.prompts_images and strength > 0, cache)
        if answer is None or strength == 0 or not answer.knows(known.names):
            said = predict(self.clip, built, known, data, np.arange(count), strength, trained)
            return (said / temperature).cpu().numpy()
        everything = np.arange(count)
        features = data.features(everything, np.zeros_like(everything))
        own = answer.logits(features)
        positions = answer.positions(known.names).to(own.device)
        if strength == 1 and answer.knows_all(known.names):
            return own[:, positions].cpu().numpy()
        frozen = logits(self.clip.scale, features, known.frozen)
        if strength < 1:
            mine = positions >= 0
            own[:, positions[mine]] = torch.lerp(frozen[:, mine] / temperature, own[:, positions[mine]], strength)
        prompted = None
        if bool((positions < 0).any()):
            prompted = predict(self.clip, built, known, data, everything, strength, trained) / temperature
        return answer.mixed(known.names, own, frozen, prompted).cpu().numpy()

    def _read(self, images: Images | GivenFeatures, pictures_only: bool, cache: Path | None) -> tuple[Any, int]:
        """The images, of which all can be read, and how many there are."""
        if isinstance(images, GivenFeatures):
            return images, len(images)
        vectors = isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.dtype.kind not in "OSU")
        if vectors and images.ndim != 4:  # type: ignore[union-attr]
            if pictures_only:
                raise UserError(f"{self.settings.method} prompts the image tower: give images, not their features")
            if images.ndim != 2 or images.shape[1] != self.clip.dimension:  # type: ignore[union-attr]
                raise UserError(f"expected features (n, {self.clip.dimension}), got {tuple(images.shape)}")  # type: ignore[union-attr]
            given = torch.as_tensor(images, dtype=torch.float32, device=self.clip.device)
            return GivenFeatures(given), len(given)
        items = as_pictures(images)
        data = CachedImages(self.clip, items, 1, cache)
        if len(data.kept) < len(items):
            raise UserError(f"{len(items) - len(data.kept)} of {len(items)} images cannot be read; leave them out")
        return data, len(items)

    def predict_proba(
        self, images: Images | GivenFeatures, classes: Sequence[str] | None = None, *, cache: Path | None = None
    ) -> Floats:
        """(n, C) calibrated probabilities, in the order of the classes; see `logits`."""
        scores = self.logits(images, classes, cache=cache)
        return torch.from_numpy(scores).softmax(dim=1).numpy()

    def predict(self, images: Images, classes: Sequence[str] | None = None, *, cache: Path | None = None) -> NDArray:
        """(n,) class names, or the whole numbers that `fit` was given; see `logits`."""
        names = self.classes_ if classes is None else np.array(self.known_classes(classes).names)
        self.known_classes(classes)  # raises for captions' prompts, which have none
        return names[self.logits(images, classes, cache=cache).argmax(axis=1)]

    def score(self, images: Images, labels: Sequence[Any] | NDArray, *, cache: Path | None = None) -> float:
        """The share of images whose class is predicted."""
        given = list(map(str, label_list(labels))) if self.labels else labels  # numbers of `fit` are no positions here
        numbers = label_numbers(given, tuple(map(str, self.classes_)), len(images))
        return float(np.mean(self.logits(images, cache=cache).argmax(axis=1) == numbers))

    # ---- folders

    def save(self, folder: Path | str, *, overwrite: bool = False) -> None:
        """Write a prompt folder.

        Raises:
            UserError: when it exists, unless `overwrite`.
        """
        saved = prompt_folder.Saved(
            state=self.method.prompter.state_dict(),
            settings=asdict(self.settings),
            base={"name": self.clip.name, "pretrained": self.clip.pretrained, "fingerprint": self.clip.fingerprint},
            classes=self.classes,
            strength=self.strength,
            temperature=self.temperature,
            training=self.training,
            labels=self.labels,
            head=None if self.answer is None else self.answer.about,
            head_state={} if self.answer is None else self.answer.head.tensors,
            **({} if self.method.teacher is None else self.method.teacher.about(self.classes)),
        )
        prompt_folder.save(folder, saved, overwrite=overwrite)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        clip: Clip | str | None = None,
        *,
        pretrained: str | None = None,
        device: str | None = None,
        strength: float | None = None,
        quick_gelu: bool | None = None,
        teacher: str | None = None,
    ) -> PromptClassifier:
        """Read a prompt folder.

        Args:
            clip: the frozen model, or its name where it has moved; None: the one that the folder names.
            pretrained: with a name; or alone, where only the checkpoint has moved.
            strength: from 0 (the frozen model) to 1; None: as saved.
            quick_gelu: of a checkpoint; see `load_clip`.
            teacher: where the model that the prompts learned from has moved; classes of the training need none.

        Raises:
            UserError: for another model than the one that the prompts were tuned on, and for a damaged folder.
        """
        saved = prompt_folder.load(folder)
        if not isinstance(clip, Clip):
            weights = pretrained or (saved.base["pretrained"] if clip is None else None)
            name = clip or saved.base["name"]
            clip = (
                reload_clip(name, weights, device=device)
                if quick_gelu is None
                else load_clip(name, weights, device=device, quick_gelu=quick_gelu)
            )
        if clip.fingerprint != saved.base["fingerprint"]:
            raise UserError(
                f"{folder} was tuned on {saved.base['name']} (fingerprint {saved.base['fingerprint'][:8]}), "
                f"got {clip.name} ({clip.fingerprint[:8]}); load that model, or tune again"
            )
        try:
            settings = Settings(**{"head": "none", **saved.settings})  # older folders have none and do not say so
            taught = Teacher.of(saved, settings.template, clip.device, teacher)
            built = build_method(clip, settings, len(saved.classes) or None, taught)
            built.prompter.load_state_dict(dict(saved.state))
        except (TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{folder} does not fit its own settings ({reason}); restore or train it again") from error
        classifier = cls(clip, settings)
        classifier._method = built
        classifier.classes, classifier.labels = saved.classes, saved.labels
        classifier.answer = (
            None if saved.head is None else Answer.of(folder, saved.head, saved.head_state, clip.dimension)
        )
        classifier.temperature, classifier.training = saved.temperature, saved.training
        classifier.strength = checked(saved.strength if strength is None else strength)
        return classifier

    def as_sentence_transformer(self) -> LiveModel:
        """A live SentenceTransformer: `encode_query` puts the prompt before a text, `encode_document` reads images.

        Raises:
            UserError: for prompts that serve no search, such as those that depend on the image.
        """
        from multimodal.interop.live import as_sentence_transformer

        return as_sentence_transformer(self.clip, self.method.prompter, strength=self.strength)

    def search_prompts(self) -> tuple[nn.Module, float]:
        """(prompter, strength), to put before the words of a search.

        Raises:
            UserError: for prompts that cannot be put before a text.
        """
        if self.settings.position != "end":
            raise UserError(
                f"these prompts were tuned with the class name at the {self.settings.position} of them, and a search "
                'puts them before the text; use prompts of the position "end"'
            )
        return self.method.prompter, self.strength

    def picture_prompts(self) -> PromptedTower | None:
        """What encodes the pictures of an index under these prompts; None where they do not enter the image tower."""
        return prompted(self.clip, self.method.prompter, self.strength)

    def way(self) -> str:
        """Which of the exact ways the text tower takes: "full", "truncated" or "shared"; see `towers.text`."""
        known = self.known_classes()
        with torch.no_grad():
            prompts = still(self.method.prompter, known, torch.zeros(1, self.clip.dimension, device=self.clip.device))
        if prompts.texts is not None:
            return "the teacher's"
        context = prompts.context[0] if prompts.per_image else prompts.context
        return self.clip.text.way(known.rows, context, prompts.deep)

    def export(self, folder: Path | str, classes: Sequence[str] | None = None, *, overwrite: bool = False) -> None:
        """Write what serves without this package: the class matrix, the names, and a FAISS index of the classes.

        How the tensors are used is said at `interop.class_matrix.export`.

        Raises:
            UserError: for prompts that depend on the image, or enter the image tower.
        """
        from multimodal.interop.class_matrix import export

        export(self, folder, classes, overwrite=overwrite)
