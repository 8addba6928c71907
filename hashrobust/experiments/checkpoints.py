"""The training state of a run folder: one model an epoch, and what is needed to go on."""

from __future__ import annotations

from hashrobust.errors import InputError, StoreError
from hashrobust.experiments.store import Folder
from hashrobust.models import Network, load_tensors, save_model, save_tensors
from hashrobust.training import TrainingState

STATE = "checkpoints/state.safetensors"


class FolderCheckpoints:
    """Keeps `checkpoints/epoch-NNN.safetensors` and `checkpoints/state.safetensors` in a run folder."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def load(self) -> TrainingState | None:
        """The state after the last finished epoch, or None before the first.

        Raises:
            StoreError: the file is damaged, or was changed.
        """
        path = self.folder.path / STATE
        if not path.exists():
            return None
        self.folder.file_at_hand(STATE)
        try:
            tensors, values = load_tensors(path)
            state = TrainingState(tensors=tensors, **values)
        except (InputError, TypeError) as error:
            raise StoreError(
                f"checkpoint '{path}' is damaged: start anew with --overwrite ({error})"
            ) from error
        if not self.folder.has(STATE):  # a process was killed before it listed it
            self.folder.seal(STATE)
        return state

    def save(self, state: TrainingState, model: Network) -> None:
        """Write the epoch's model, then the state that names it as finished."""
        with self.folder.writing(f"checkpoints/epoch-{state.epoch:03d}.safetensors") as temporary:
            save_model(model, temporary)
        with self.folder.writing(STATE) as temporary:
            save_tensors(state.tensors, temporary, state.values())
