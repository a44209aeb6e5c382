"""What only this host needs of a server's text: messages out of a prompt, ids out of an answer."""

from ...contract import Messages
from ...text.tokenizer import Tokenizer
from .prompt_reader import PromptReader
from .retokenizer import Retokenizer, Spelling

_PLAIN = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


class ExoText:
    """Both directions for one model. Making it and reading a prompt take a while: use a thread.

    Raises TokenizerError where the tokenizer can't spell plain text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        template = tokenizer.chat_template or _PLAIN
        self._prompts = PromptReader(template, tokenizer.special_tokens)
        self._spell = Retokenizer(tokenizer.fast)

    def read(self, prompt: str) -> Messages:
        """The conversation that a prompt was made of."""
        return self._prompts.read(prompt)

    def spell(self) -> Spelling:
        """The ids of one answer, from its text as it comes."""
        return self._spell.start()
