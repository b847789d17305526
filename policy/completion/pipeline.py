"""The steps of one request, from the cursor to the text: plan, read, decide, retrieve, generate, shape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from indexer.model import Cursor, Hit, Retriever
from policy.completion.attempt import Attempt, Search
from policy.completion.clock import Clock
from policy.completion.cost import considering_cache, with_empty_cache
from policy.completion.pending import PendingCompletion
from policy.completion.pinned import LineDecisions, PinnedChunks
from policy.completion.plan import plan
from policy.completion.request import Completion, CompletionSettings, Request
from policy.completion.shape import Shaper
from policy.completion.shaping.files import ParsedFiles
from policy.engine.supervisor import Supervisor
from policy.gating.decision import Decision, by_gate, by_likeliest, by_similarity
from policy.gating.evidence import evidence
from policy.gating.gate import UNCALIBRATED, Gate, GateInputs, Scope, evidence_gate, gate_from_metadata, gates_of
from policy.generators import GeneratorProvider, SameModel

# The factor for the time limit of a generation, by trigger. A user who invokes a completion is ready to wait for it.
PATIENCE_FACTORS = {"automatic": 1, "invoked": 8}


class Pipeline:
    """Makes completions.

    `supervisor` has the engine of the local model. `retriever` returns the object that searches the index, or None if
    there is no index. `provider` chooses the models that decide and generate.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        retriever: Callable[[], Retriever | None],
        provider: GeneratorProvider,
    ) -> None:
        self.supervisor = supervisor
        self.retriever = retriever
        self.provider = provider
        self.pinned = PinnedChunks()
        self._line_decisions = LineDecisions()
        self._files = ParsedFiles(background=True)

    async def run(
        self, request: Request, settings: CompletionSettings, clock: Clock, pending: PendingCompletion[Completion]
    ) -> Completion:
        """Make the completion for `request`. Raises `RepoformerError`.

        Each time the generated text grows, it is reported to `pending`.
        """
        document, cursor = request.document, request.cursor
        automatic = request.trigger == "automatic"
        candidates = 1 if automatic else settings.candidates
        with clock.measure("engine"):
            engine = await self.supervisor.engine()
        search = Search(self.retriever() if settings.policy != "never" else None, cursor, settings.chunks, clock)
        withheld = "" if self.provider.local else cursor.private or self.provider.withholds(cursor)
        provider = SameModel() if withheld else self.provider
        attempt = Attempt(
            engine,
            provider,
            document,
            cursor,
            clock,
            patience=settings.patience * PATIENCE_FACTORS[request.trigger],
            invoked=not automatic,
            urgency=pending.urgency,
            report=pending.report,
        )
        # If the request uses the pinned chunks, it need not wait for a search. Idle work searches after the answer.
        pinned = self.pinned.at(document, cursor) if automatic and self.works_ahead(request, settings) else ()
        planned = plan(
            settings.policy,
            self._line_decisions.find(document, cursor, settings) if automatic else None,
            pinned,
            model_decides=self._model_decides(provider) and self._first_gate(settings, provider) is None,
            separate=attempt.separate,
        )
        try:
            if planned.search:
                search.start()
            if planned.read:
                attempt.start_reading()
            if planned.generate is not None:
                attempt.start_generating(planned.generate, settings.block_tokens, candidates)
            await asyncio.sleep(0)  # let the started tasks send their requests to the engine
            with clock.measure("shape"):  # this work runs while the engine works
                # An automatic completion ends where its line opens a block, so the user need not wait for the body.
                shaper = Shaper(
                    cursor,
                    multiline=settings.multiline,
                    bodies=not automatic,
                    files=self._files,
                    document=document,
                )
                shaper.prepare()
            if (decision := planned.decision) is None:
                with clock.measure("decision"):
                    decision = await self._decide(attempt, provider, search, pinned, cursor, settings, shaper.scope)
                    if automatic and self.works_ahead(request, settings):
                        decision = await self._considering_cache(attempt, decision, request, search, pinned, settings)
                # A completion in advance may be on another line than the user's cursor, so its decision is not stored.
                # A deferred decision is not stored either, because the chunks may be in the cache after the next key.
                if not pending.urgency.background and not decision.deferred:
                    self._line_decisions.put(document, cursor, settings, decision)
            hits = await self._retrieve(request, search, pinned) if decision.retrieve else ()
            limit = settings.block_tokens if shaper.grows else settings.line_tokens
            generated = await attempt.generate(shaper, hits, limit, candidates)
        finally:
            search.cancel()
            await attempt.end()
        # A short prompt has room for fewer chunks, but the others stay pinned for the whole prompt.
        if decision.retrieve and not generated.short_prompt and self.pinned.at(document, cursor) == hits:
            self.pinned.pin(document, cursor, generated.whole_hits)  # keep only the chunks that fit into the prompt
        text, *others = generated.texts or ("",)
        return Completion(
            text,
            decision,
            generated.hits,
            clock.finish(),
            attempt.stats(),
            attempt.model,
            reason=generated.reason,
            trimmed=attempt.trimmed,
            short_prompt=generated.short_prompt,
            others=tuple(others),
            parsed=shaper.parsed,
            surprises=generated.surprises,
            shortened=generated.shortened,
            keep=generated.keep,
            withheld=withheld,
        )

    async def _decide(
        self,
        attempt: Attempt,
        provider: GeneratorProvider,
        search: Search,
        pinned: Sequence[Hit],
        cursor: Cursor,
        settings: CompletionSettings,
        kind: Scope,
    ) -> Decision:
        """Decide with the model's gates, or, for a model without gates, by the similarity of the best chunk.

        The gate *evidence* comes first. It needs only the hits, which a search finds in milliseconds. If this gate is
        sure, the model does not evaluate the prompt for the decision, but only the prompt of the chosen branch. If
        chunks are pinned, the evidence comes from them, because a retrieval would use them, so no keystroke waits for a
        search. `kind` says whether a line or a block is completed.
        """
        info = self.supervisor.info
        if first := self._first_gate(settings, provider):
            known = GateInputs(kind, evidence=evidence(cursor, pinned or await search.hits()))
            if decision := self._by_first_gate(first, known, provider, settings):
                return decision
            attempt.start_reading()
        if self._model_decides(provider):
            reading = await attempt.read()
            if reading.p_cc is not None and settings.selection == "greedy":
                return by_likeliest(reading.p_cc, cc_is_top=reading.cc_is_top)
            gates = gates_of(info.metadata if info and not provider.decides else {})
            gate = gates[0] if settings.selection == "threshold" else gates[-1]
            found = evidence(cursor, pinned or await search.hits()) if gate.needs_evidence else None
            known = GateInputs(kind, reading.p_cc, reading.first_p, reading.first_entropy, found)
            if decision := by_gate(gate, known, settings.threshold) or by_gate(UNCALIBRATED, known, settings.threshold):
                return decision
        # No gate can decide, so the similarity decides. It needs only the search, which takes milliseconds.
        return _by_best(await search.hits(), settings)

    def _by_first_gate(
        self, gate: Gate, known: GateInputs, provider: GeneratorProvider, settings: CompletionSettings
    ) -> Decision | None:
        """Decide with the gate *evidence*. Return None if it is not sure, and the model has to be asked."""
        decision = by_gate(gate, known, settings.threshold)
        assert decision is not None, "the gate needs only evidence"
        asks = self._model_decides(provider) and settings.threshold is None and not gate.is_sure(decision.p_retrieve)
        return None if asks else decision

    async def _considering_cache(
        self,
        attempt: Attempt,
        decision: Decision,
        request: Request,
        search: Search,
        pinned: tuple[Hit, ...],
        settings: CompletionSettings,
    ) -> Decision:
        """Return `decision`, adapted to what is in the KV cache, if the model read nothing for it."""
        if decision.source not in {"evidence", "similarity"}:
            return decision
        hits = pinned or self.pinned.choose(request.document, request.cursor, await search.hits())
        if not hits:
            return decision
        if (missing := await attempt.missing(hits)) is None:
            return decision
        return considering_cache(decision, missing, fixed=settings.threshold is not None)

    def expects(self, document: str, cursor: Cursor, hits: Sequence[Hit], settings: CompletionSettings) -> bool | None:
        """Return whether a request at `cursor` would retrieve, given the `hits` of a search.

        Return None if the model has to read the prompt for this decision.
        """
        if settings.policy != "selective":
            return settings.policy == "always"
        if held := self._line_decisions.find(document, cursor, settings):
            return held.retrieve
        if gate := self._first_gate(settings, self.provider):
            known = GateInputs("line", evidence=evidence(cursor, hits))
            decision = self._by_first_gate(gate, known, self.provider, settings)
        else:
            decision = None if self._model_decides(self.provider) else _by_best(hits, settings)
        if decision is None:
            return None
        return with_empty_cache(decision, fixed=settings.threshold is not None).retrieve

    async def _retrieve(self, request: Request, search: Search, pinned: tuple[Hit, ...]) -> tuple[Hit, ...]:
        """Return the chunks for the prompt, and pin them."""
        if pinned and not search.started:
            return pinned
        hits = self.pinned.choose(request.document, request.cursor, await search.hits())
        # Pin the chunks before the model evaluates them. Otherwise, the next request could choose other chunks.
        self.pinned.pin(request.document, request.cursor, hits)
        return hits

    def works_ahead(self, request: Request, settings: CompletionSettings) -> bool:
        """Return whether idle work may follow `request`.

        Idle work must not use a server, because users may pay for each generation.
        """
        return settings.ahead and request.ahead and self.provider.local

    def forget(self, document: str) -> None:
        """Delete the state of a closed document."""
        self.pinned.forget(document)
        self._line_decisions.forget(document)
        self._files.forget(document)

    def _model_decides(self, provider: GeneratorProvider) -> bool:
        """Return whether a decision can use a reading.

        A reading is useful if the local model or a server has the token `<cc>`, or if the local model has the gate
        *hybrid*, which uses the probabilities of the first token.
        """
        info = self.supervisor.info
        if info is None or info.selective or provider.decides:
            return True
        return gate_from_metadata(info.metadata, "hybrid") is not None

    def _first_gate(self, settings: CompletionSettings, provider: GeneratorProvider) -> Gate | None:
        """Return the model's gate *evidence*, which decides before the model reads the prompt.

        Return None if there is no such gate, or if the settings or `provider` require another kind of decision.
        """
        info = self.supervisor.info
        if info is None or provider.decides or settings.selection != "threshold":
            return None
        return evidence_gate(info.metadata)


def _by_best(hits: Sequence[Hit], settings: CompletionSettings) -> Decision:
    """Decide by the similarity of the best chunk."""
    best = max((hit.score for hit in hits), default=0.0)
    return by_similarity(best) if settings.threshold is None else by_similarity(best, settings.threshold)
