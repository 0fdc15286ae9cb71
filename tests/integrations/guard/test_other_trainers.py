"""The guard in TRL's, SetFit's and Lightning's trainers, with PEFT, and with drawn masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast import Guard
from holdfast.control.choice import lowest
from holdfast.core.actions import Action, Stop
from holdfast.core.errors import DataError, RecipeError, RunError

FIRST = lowest(lambda snapshot: float(snapshot.step))


class StopAt:
    """An advisor that stops at its n-th look."""

    def __init__(self, count: int) -> None:
        self.left = count

    def decide(self, verdict: Any, history: Any) -> tuple[Action, ...]:
        self.left -= 1
        return (Stop("that was asked for"),) if self.left <= 0 else ()

    def state_dict(self) -> dict[str, Any]:
        return {"left": self.left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.left = state["left"]


def weights(model: Any) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sft_trainer_with_an_adapter(tiny_llama: Path, tmp_path: Path, lines: list[str]) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"prompt": f"say {i % 4}: ", "completion": "abcd"[i % 4] * (2 + i % 3)} for i in range(20)
    ]
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    guard = Guard(choose=FIRST, log=lines.append)
    made = SFTTrainer(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(tiny_llama),
        args=SFTConfig(
            output_dir=str(tmp_path),
            max_steps=4,
            per_device_train_batch_size=4,
            eval_strategy="steps",
            eval_steps=2,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            learning_rate=1e-2,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(rows[:12]),
        eval_dataset=Dataset.from_list(rows[12:]),
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        callbacks=[guard.callback()],
    )
    adapter = [p for p in made.model.parameters() if p.requires_grad]
    made.train()
    size = sum(p.numel() * p.element_size() for p in adapter) / 1e6
    assert any(f"a copy of {size:,.1f} MB" in line for line in lines)
    assert [s.step for s in guard.history] == [0, 2, 4]
    assert any("next tokens" in line for line in lines)
    assert not any("Warning" in line for line in lines)
    # LoRA begins as nothing, and the first state is the one that was chosen.
    assert all((p == 0).all() for n, p in made.model.named_parameters() if "lora_B" in n)
    made.model.eval()
    for row, loss in zip(made.eval_dataset, guard.history[0].valid_losses, strict=True):
        batch = made.data_collator([row])
        with torch.no_grad():
            assert float(made.model(**batch).loss) == pytest.approx(loss, abs=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_faults_of_a_language_models_rows_are_told_before_the_first_step(
    trainer: Any, tiny_llama: Path, lines: list[str]
) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling

    words = AutoTokenizer.from_pretrained(tiny_llama)
    words.pad_token = words.eos_token
    ids = [
        [*words(f"tell {i % 7} " * (1 + i % 3))["input_ids"], words.eos_token_id] for i in range(40)
    ]
    rows = Dataset.from_dict({"input_ids": ids})

    def made(out: str, collator: Any, guard: Guard | None) -> Any:
        torch.manual_seed(0)
        found = trainer(
            *([guard.callback()] if guard else []),
            out=out,
            model=AutoModelForCausalLM.from_pretrained(tiny_llama),
            train_dataset=rows,
            eval_dataset=rows,
            data_collator=collator,
            eval_strategy="no",
            max_steps=2,
        )
        found.processing_class = words
        return found

    masking = DataCollatorForLanguageModeling(words, mlm=False)
    watched = made("a", masking, Guard(policy="off", evaluations=1, log=lines.append))
    watched.train()
    (told,) = [line for line in lines if "Warning" in line]
    assert "training rows, end missing" in told or "training rows, end masked" in told
    assert "⟦" in told

    # Rows that cannot be checked are told, and end nothing.
    def refuses(*_: Any) -> Any:
        raise ValueError("odd tokenizer")

    strange = Guard(policy="off", evaluations=1, log=lines.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.plugins.trainers.rows.check_tokens", refuses)
        made("c", masking, strange).train()
    assert any("not checked (ValueError: odd tokenizer)" in line for line in lines)
    assert strange.verdict is not None
    # What is said of the rows changes nothing of the run.
    plain = made("b", masking, None)
    plain.train()
    assert same(weights(watched.model), weights(plain.model))


@pytest.mark.slow
def test_masks_are_the_same_at_every_look_and_training_draws_its_own(
    trainer: Any, rows_of: Any, tiny_model: Path, lines: list[str]
) -> None:
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
    )

    def model() -> Any:
        torch.manual_seed(0)
        return BertForMaskedLM(
            BertConfig(
                vocab_size=48,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=24,
                max_position_embeddings=32,
            )
        )

    words = AutoTokenizer.from_pretrained(tiny_model)

    def make(out: str, *callbacks: Any, rate: float = 1e-2, seed: int | None = None) -> Any:
        plain = rows_of(16).remove_columns("labels")
        return trainer(
            *callbacks,
            out=out,
            model=model(),
            train_dataset=plain,
            eval_dataset=plain,
            data_collator=DataCollatorForLanguageModeling(words, seed=seed),
            learning_rate=rate,
            eval_strategy="no",
            max_steps=4,
            remove_unused_columns=False,
        )

    still = Guard(policy="off", evaluations=2, log=lines.append)
    make("still", still.callback(), rate=0.0).train()
    assert np.array_equal(still.history[0].valid_losses, still.history[-1].valid_losses)
    watched = make("a", Guard(policy="off", evaluations=2, log=lines.append).callback(), seed=5)
    watched.train()
    plain = make("b", seed=5)
    plain.train()
    assert same(weights(watched.model), weights(plain.model))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_setfit_trains_with_a_head_fitted_at_each_look(
    tiny_model: Path, tmp_path: Path, marked_rows: Any, lines: list[str]
) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    body = Transformer(str(tiny_model), max_seq_length=32)
    encoder = SentenceTransformer(modules=[body, Pooling(32)], device="cpu")
    rows = [{"text": text, "label": label} for text, label in marked_rows(40)]
    train, other = Dataset.from_list(rows[:16]), Dataset.from_list(rows[16:])
    guard = Guard(evaluations=2, choose=FIRST, log=lines.append)
    made = Trainer(
        model=SetFitModel(
            model_body=encoder, model_head=LogisticRegression(), labels=["no", "yes"]
        ),
        args=TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=4,
            batch_size=8,
            use_amp=False,
            report_to="none",
            show_progress_bar=False,
            eval_strategy="no",
            save_strategy="no",
        ),
        train_dataset=train,
        eval_dataset=other,
        callbacks=[guard.callback()],
    )
    before = encoder.encode(rows[0]["text"])
    made.train()
    assert [s.step for s in guard.history] == [0, 2, 4]
    # 16 and 24 texts, in pairs.
    assert guard._watch.foreign_run.evaluated_rows == 20  # type: ignore[union-attr]
    # The first encoder is the one that was chosen, and SetFit's head stands on it.
    assert np.allclose(encoder.encode(rows[0]["text"]), before, atol=1e-6)
    chances = made.model.predict_proba(other["text"], as_numpy=True)
    order = list(made.model.model_head.classes_)
    expected = [-np.log(chances[i][order.index(row["label"])]) for i, row in enumerate(other)]
    assert guard.history[0].valid_losses == pytest.approx(np.array(expected), abs=1e-4)
    assert (guard.folder / "report.html").exists()  # type: ignore[operator]


class TestLightning:
    def pieces(self, tmp_path: Path, *callbacks: Any, epochs: int = 3, **more: Any) -> Any:
        from lightning.pytorch import LightningModule, Trainer
        from torch.utils.data import DataLoader, TensorDataset
        from torchmetrics import MeanMetric

        class Line(LightningModule):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.layers = torch.nn.Sequential(
                    torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 3)
                )
                self.seen = MeanMetric()

            def training_step(self, batch: Any, index: int) -> Any:
                loss = torch.nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
                self.seen.update(loss.detach())
                self.log("mean", self.seen, on_epoch=True)
                return loss

            def validation_step(self, batch: Any, index: int) -> None:
                loss = torch.nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
                self.log("val_loss", loss)

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.1)

        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(48, 4, generator=generator)
        labels = inputs[:, :3].argmax(dim=1)
        loaders = (
            DataLoader(TensorDataset(inputs[:32], labels[:32]), batch_size=8, shuffle=True),
            DataLoader(TensorDataset(inputs[32:], labels[32:]), batch_size=8),
        )
        made = Trainer(
            default_root_dir=tmp_path,
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
            **{"enable_checkpointing": False, **more},
        )
        return made, Line(), loaders

    def fit(self, made: Any, **more: Any) -> Any:
        trainer, module, loaders = made
        torch.manual_seed(7)
        trainer.fit(module, *loaders, **more)
        return module

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("given", [True, False])
    def test_it_sees_right_and_leaves_no_trace(
        self, tmp_path: Path, lines: list[str], given: bool
    ) -> None:
        guard = Guard(policy="off", log=lines.append)
        how = (lambda module, batch: (module.layers(batch[0]), batch[1])) if given else None
        watched = self.pieces(tmp_path / "a", guard.lightning_callback(logits=how))
        module, plain = self.fit(watched), self.pieces(tmp_path / "b")
        assert same(weights(module), weights(self.fit(plain)))
        numbers = {k: float(v) for k, v in watched[0].callback_metrics.items()}
        assert numbers == {k: float(v) for k, v in plain[0].callback_metrics.items()}
        assert [s.step for s in guard.history] == [0, 4, 8, 12]
        inputs, labels = watched[2][1].dataset.tensors
        module.eval()
        with torch.no_grad():
            expected = torch.nn.functional.cross_entropy(
                module.layers(inputs), labels, reduction="none"
            )
        assert guard.history[-1].valid_losses == pytest.approx(expected.numpy(), abs=1e-6)
        assert (guard.history[-1].valid_logits is not None) == given

    @pytest.mark.filterwarnings("ignore")
    def test_it_stops_restores_and_survives_a_resume(
        self, tmp_path: Path, lines: list[str]
    ) -> None:
        from lightning.pytorch.callbacks import ModelCheckpoint

        def make(folder: Path, epochs: int) -> tuple[Guard, Any]:
            guard = Guard(advisor=StopAt(5), choose=FIRST, log=lines.append)
            keeper = ModelCheckpoint(folder, save_last=True, every_n_epochs=1)
            return guard, self.pieces(
                folder, guard.lightning_callback(), keeper, epochs=epochs, enable_checkpointing=True
            )

        whole, first = make(tmp_path / "a", 9)
        start = weights(first[1])
        module = self.fit(first)
        assert (first[0].global_step, whole.stopped_because) == (16, "that was asked for")
        assert same(weights(module)[:4], start[:4])
        self.fit(make(tmp_path / "b", 2)[1])
        again, second = make(tmp_path / "b", 9)
        self.fit(second, ckpt_path=str(tmp_path / "b" / "last.ckpt"))
        assert [s.step for s in again.history] == [s.step for s in whole.history]
        assert second[0].global_step == 16
        assert (again.best_step, again.stopped_because) == (0, whole.stopped_because)
        assert same(weights(second[1])[:4], start[:4])

    @pytest.mark.filterwarnings("ignore")
    def test_what_it_cannot_do_is_refused(self, tmp_path: Path, lines: list[str]) -> None:
        made = self.pieces(tmp_path, Guard(log=lines.append).lightning_callback())
        with pytest.raises(DataError, match="no validation rows"):
            made[0].fit(made[1], made[2][0])
        made = self.pieces(tmp_path, Guard(hold_out=0.2).lightning_callback())
        with pytest.raises(RecipeError, match="cannot split"):
            self.fit(made)
        made = self.pieces(tmp_path, epochs=1)
        self.fit(made)
        made[0].save_checkpoint(tmp_path / "plain.ckpt")
        made = self.pieces(tmp_path, Guard(log=lines.append).lightning_callback())
        with pytest.raises(RunError, match="no state of the guard"):
            self.fit(made, ckpt_path=str(tmp_path / "plain.ckpt"))

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("given", [True, False])
    def test_what_a_module_raises_is_not_called_a_defect_of_ours(
        self, tmp_path: Path, lines: list[str], given: bool
    ) -> None:
        def gone(*_: Any) -> Any:
            raise OSError("the share is gone")

        how = gone if given else None
        made = self.pieces(tmp_path, Guard(log=lines.append).lightning_callback(logits=how))
        if not given:
            whole = type(made[1]).training_step

            def step(module: Any, batch: Any, index: int) -> Any:
                return whole(module, batch, index) if module.training else gone()

            type(made[1]).training_step = step
        self.fit(made)
        (told,) = [line for line in lines if "disabled itself" in line]
        what = "lightning_callback(logits=…)" if given else "training_step"
        assert f"{what} raised OSError: the share is gone" in told

    @pytest.mark.filterwarnings("ignore")
    def test_a_failure_of_the_guard_ends_no_training(
        self, tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOLDFAST_DEFECTS", "")
        plain = weights(self.fit(self.pieces(tmp_path / "a")))
        for part in ("judge", "WeightCopies.copy", "without_side_effects"):
            guard = Guard(log=lines.append)
            made = self.pieces(tmp_path / part, guard.lightning_callback())
            with monkeypatch.context() as patch:
                patch.setattr(f"holdfast.plugins.trainers.watch.{part}", lambda *_: 1 / 0)
                assert same(weights(self.fit(made)), plain)
            assert "Warning: the guard disabled itself" in lines[-1]
            assert made[0].global_step == 12
