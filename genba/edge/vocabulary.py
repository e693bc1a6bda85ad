"""Text to tokens and back, with the vocabulary and the chat template of a GGUF file."""

import codecs
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from genba.core.problem import Problem
from genba.core.talk import Words
from genba.edge.chat_template import ChatTemplate
from genba.edge.gguf import Gguf, read_gguf

_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens in GGUF
_GPT4: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{%s}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: How text is cut before pairs are merged, by `tokenizer.ggml.pre`.
_SPLITS: Final = {"llama-bpe": _GPT4 % "1,3", "llama3": _GPT4 % "1,3", "qwen2": _GPT4 % "1"}
_GPT2: Final = frozenset({"default", "gpt-2"})
_BY_DIGIT: Final = frozenset({"smollm"})  # GPT-2's way, with every digit on its own
#: Tokens that end an answer whatever else the file says; the engines end at them too.
_ENDS: Final = frozenset(
    {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "<|end_of_text|>", "<end_of_turn>"}
)
#: Put into names of special tokens inside messages, so that they stay text. No character of any
#: text is this one: Unicode reserves it for use inside programs.
_SHIELD: Final = "\ufdd0"


class GgufVocabulary:
    """The vocabulary of a language model, see `genba.core.talk.Vocabulary`.

    Args:
        model: A GGUF file, or what was read of one.

    Raises:
        Problem: G642 for a damaged file, G643 for a kind of vocabulary that is not read here.
    """

    def __init__(self, model: bytes | Gguf) -> None:
        file = model if isinstance(model, Gguf) else read_gguf(model)
        self._names, kinds = _tokens(file)
        self.size = len(self._names)
        marked = (_CONTROL, _USER_DEFINED)
        self.special: Mapping[str, int] = {
            name: i for i, name in enumerate(self._names) if kinds[i] in marked
        }
        self.control: frozenset[int] = frozenset(
            i for i, kind in enumerate(kinds) if kind == _CONTROL
        )
        own = [n for n, i in self.special.items() if i not in self.control]
        self._tokenizer = _tokenizer(file, self._names, own)
        self.first, self.end = _edges(file, self._names, self.control)
        self._template = ChatTemplate(
            file.metadata.get("tokenizer.chat_template"),
            names={
                "bos_token": self._name_of(file, "bos"),
                "eos_token": self._name_of(file, "eos"),
            },
            special=self.special,
        )
        alone = {name: i for i, name in enumerate(self._names) if len(name) == 1}
        self._numbers = {byte: alone[letter] for letter, byte in _BYTES.items() if letter in alone}
        self._split = _split_at([self._names[i] for i in sorted(self.control)])

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the tokens of a text; `special`: names such as <|im_end|> in it are tokens."""
        if not special:
            return self._plain(text)
        tokens: list[int] = []
        for at, part in enumerate(self._split.split(text)):
            tokens += [self.special[part]] if at % 2 else self._plain(part)
        return tokens

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Return the text of tokens; `special`: with the names of special tokens.

        Bytes that are no UTF-8 become U+FFFD.
        """
        return self.bytes_of(tokens, special=special).decode("utf-8", "replace")

    def bytes_of(self, tokens: Sequence[int], *, special: bool = False) -> bytes:
        """Return the bytes of tokens, which may begin or end inside a character.

        Raises:
            Problem: G602 for a number that is no token.
        """
        return b"".join([self._bytes_of(int(token), special) for token in tokens])

    def of_byte(self, byte: int) -> int:
        """Return the token of a single byte, of which there is one for each."""
        return self._numbers[byte]

    def prompt(self, messages: Words, *, tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Return the tokens of a conversation, up to where the answer begins.

        Names of special tokens inside of messages are plain text: nobody can end their message, or
        begin one of the system, from within.

        Raises:
            Problem: G643 when the template refuses the messages.
        """
        shielded, about = self._shielded(list(messages)), self._shielded(list(tools))
        text = self._template.render(shielded, tools=about)
        tokens = self.encode(text, special=True)
        return tokens if tokens[: len(self.first)] == list(self.first) else [*self.first, *tokens]

    def _plain(self, text: str) -> list[int]:
        whole = text.replace(_SHIELD, "")
        tokens: list[int] = self._tokenizer.encode(whole, add_special_tokens=False).ids
        return tokens

    def _shielded(self, value: Any) -> Any:
        """Return messages in which no name of a special token is left whole."""
        if isinstance(value, str):
            return self._split.sub(
                lambda found: f"{found[0][0]}{_SHIELD}{found[0][1:]}", value.replace(_SHIELD, "")
            )
        if isinstance(value, Mapping):
            return {key: self._shielded(item) for key, item in value.items()}
        return [self._shielded(v) for v in value] if isinstance(value, list | tuple) else value

    def _bytes_of(self, token: int, special: bool) -> bytes:
        if not 0 <= token < self.size:
            raise Problem(
                "G602",
                f"The number {token} is no token: there are {self.size}.",
                tries=["encode the text with the vocabulary of this model", "genba explain G602"],
            )
        name = self._names[token]
        if name in self.special:
            return name.encode() if special or token not in self.control else b""
        return bytes(_BYTES[letter] for letter in name if letter in _BYTES)

    def _name_of(self, file: Gguf, which: str) -> str:
        token = file.metadata.get(f"tokenizer.ggml.{which}_token_id")
        if not isinstance(token, int) or not 0 <= token < self.size:
            return ""
        return self._names[token]


class StreamDecoder:
    """Text from tokens as they come, never half a character.

    Example:
        >>> class Letters:
        ...     def bytes_of(self, tokens, *, special=False):
        ...         return bytes(tokens)
        >>> decoder = StreamDecoder(Letters())
        >>> [decoder.feed([token]) for token in "aé".encode()]
        ['a', '', 'é']
        >>> decoder.feed([0xE3]), decoder.finish()
        ('', '\ufffd')
    """

    def __init__(self, vocabulary: Any, *, special: bool = False) -> None:
        self._vocabulary = vocabulary
        self._special = special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, tokens: Sequence[int]) -> str:
        """Return what can be said of the text with these tokens, which may be nothing yet."""
        return self._decoder.decode(self._vocabulary.bytes_of(tokens, special=self._special))

    def finish(self) -> str:
        """Return what is left: U+FFFD where the answer ends inside a character."""
        return self._decoder.decode(b"", final=True)


def _tokens(file: Gguf) -> tuple[list[str], list[int]]:
    names = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise _unreadable("The file has no list of tokens.")
    kinds = file.metadata.get("tokenizer.ggml.token_type", [1] * len(names))
    if len(kinds) != len(names) or len(set(names)) != len(names):
        raise _unreadable("The list of tokens does not agree with itself.")
    return names, kinds


def _tokenizer(file: Gguf, names: Sequence[str], own: Sequence[str]) -> Any:
    kind = file.metadata.get("tokenizer.ggml.model")
    cut = file.metadata.get("tokenizer.ggml.pre", "default")
    merges = file.metadata.get("tokenizer.ggml.merges")
    if kind != "gpt2" or cut not in _SPLITS.keys() | _GPT2 | _BY_DIGIT:
        raise _unreadable(f"It is {kind!r} with {cut!r}; byte-level pair encoding is read.")
    if not isinstance(merges, list):
        raise _unreadable("The file has no merges.")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    try:
        vocabulary = {name: i for i, name in enumerate(names)}
        tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=pairs))
    except Exception as error:  # the library raises plain Exception for merges that do not fit
        raise _unreadable(str(error)[:200]) from error
    if cut == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _cutting(cut)
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in own])
    return tokenizer


def _cutting(cut: str) -> Any:
    byte_level = pre_tokenizers.ByteLevel
    if cut in _SPLITS:
        split = pre_tokenizers.Split(Regex(_SPLITS[cut]), behavior="isolated")
        steps = [split, byte_level(add_prefix_space=False, use_regex=False)]
        return pre_tokenizers.Sequence(steps)
    gpt2 = byte_level(add_prefix_space=False, use_regex=True)
    if cut in _GPT2:
        return gpt2
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])


def _edges(
    file: Gguf, names: Sequence[str], control: frozenset[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what a text begins with, and the tokens that end an answer, the model's own first."""
    cut = file.metadata.get("tokenizer.ggml.pre")
    begins = file.metadata.get("tokenizer.ggml.add_bos_token", cut in {"llama-bpe", "llama3"})
    first = file.metadata.get("tokenizer.ggml.bos_token_id") if begins else None
    stated = (file.metadata.get(f"tokenizer.ggml.{n}_token_id") for n in ("eos", "eot"))
    named = sorted(i for i in control if names[i] in _ENDS)
    end = dict.fromkeys([*(i for i in stated if i is not None), *named])
    if not all(isinstance(i, int) and 0 <= i < len(names) for i in (*end, first or 0)):
        raise _unreadable("The file names an end or a beginning that is no token.")
    return () if first is None else (first,), tuple(end)


def _split_at(names: Sequence[str]) -> re.Pattern[str]:
    longest = sorted(names, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest))})" if names else "($^)")


def _letters() -> dict[str, int]:
    """Return the byte behind each letter of GPT-2's alphabet, in which no byte is invisible."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    hidden = [byte for byte in range(256) if byte not in set(seen)]
    moved = {chr(256 + at): byte for at, byte in enumerate(hidden)}
    return {chr(byte): byte for byte in seen} | moved


_BYTES: Final = _letters()


def _unreadable(why: str) -> Problem:
    return Problem(
        "G643",
        "The vocabulary of the language model cannot be used.",
        why=why,
        tries=["genba explain G643"],
    )
