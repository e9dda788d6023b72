"""Phrases with which generated texts name an option, and with which they rule one out: expressions by strength.

All are matched on plain text (`answer_extraction`): full-width forms made plain, mark-up taken out.
"""

import re
import unicodedata

from crossmatch.data.reasoning_formats import ANSWER_TAGS
from crossmatch.data.text_forms import one_form
from crossmatch.data.trace_blocks import SPECIAL_TOKENS

_I = re.IGNORECASE
_IM = re.IGNORECASE | re.MULTILINE

# language -> (words for the answer, what stands between them and a letter). A label with a colon is read in all of
# them, whatever the suite's language: models answer in the language they like. English and Chinese have more below.
LABELS = {
    "de": ("antwort|lösung|antwortmöglichkeit", "ist|lautet|wäre"),
    "fr": ("réponse|solution", "est|serait"),
    "es": ("respuesta|opción correcta|solución", "es|sería"),
    "it": ("risposta|soluzione", "è|sarebbe"),
    "pt": ("resposta|alternativa correta", "é|seria"),
    "nl": ("antwoord", "is"),
    "sv": ("svar|svaret", "är"),
    "pl": ("odpowiedź|odpowiedzią", "to|jest|brzmi"),
    "cs": ("odpověď", "je"),
    "ro": ("răspuns|răspunsul", "este"),
    "hu": ("válasz", "a|az"),
    "el": ("απάντηση", "είναι"),
    "ru": ("ответ", "это|—|–|-"),
    "uk": ("відповідь", "це|—|–|-"),
    "tr": ("cevap|yanıt", "şudur"),
    "id": ("jawaban|jawabannya|jawapan", "adalah|ialah"),
    "vi": ("đáp án|câu trả lời", "là"),
    "sw": ("jibu", "ni"),
    "ja": ("答え|回答|正解|解答", "は"),
    "ko": ("정답|답변|답", "은|는"),
    "ar": ("الإجابة|الجواب|إجابة", "هي|هو"),
    "fa": ("پاسخ|جواب", ""),
    "hi": ("उत्तर|जवाब", "है"),
    "bn": ("উত্তর", "হল|হলো"),
    "th": ("คำตอบ", "คือ"),
}
# Letters that are words of a language: before another word they name no option.
WORDS = {
    "en": "ai",
    "id": "ai",
    "sw": "ai",
    "fr": "ay",
    "es": "aeouy",
    "it": "aeio",
    "pt": "aeo",
    "pl": "aiouwz",
    "cs": "aiouskvz",
    "sv": "iå",
    "hu": "aés",
    "ro": "aoe",
}


def _compile(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """An expression for texts whose Han characters are in one form, as its own are."""
    return re.compile(one_form(pattern), flags)


MARKS = re.compile(r"\*+|`+|~~|\$|\\\(|\\\)|\\\[|\\\]|(?<!\w)_+|_+(?!\w)|^#+ *", re.MULTILINE)
BOXED = _compile(r"\\(?:boxed|fbox|framebox)\{\s*(?:\\[a-z]+\{)?\s*([^{}]*)\}+")
# Commands of LaTeX that change only the face of what they hold.
FACE = re.compile(r"\\(?:text|math|operatorname)(?:bf|rm|sf|it|tt|normal|md)?\{([^{}]*)\}|\\ (?=\S)")
# Special tokens, and a next question that a model without a chat template goes on to ask itself.
TOKENS = re.compile(SPECIAL_TOKENS)
NEXT = _compile(r"\n\s*(?:question|problem|问题|题目)\s*\d*\s*[:.].*", _I | re.DOTALL)

FINAL = _compile(
    r"\bfinal (?:answer|choice|selection)(?: is| would be| remains)?\s*[:=]?\s*|FINAL\s*:\s*"
    r"|最终(?:的)?(?:答案|选择|选项)(?:应?该?[是为选])?\s*:?\s*",
    _I,
)
_BE = (
    r"(?:is|was|would be|should be|must be|has to be|seems to be|appears to be|could be|might be|may be|remains)"
    r"(?:(?: most| very)? likely| probably| therefore| clearly| thus| definitely| indeed)?(?: to be)?"
)
# Languages that put no space between words, or whose vowel signs are no letters to regular expressions.
_RUN_ON = ("ja", "ko", "th", "hi", "bn")


def _label(language: str) -> str:
    """A label of a language as an expression: its word, up to two more, then a colon or a form of "is"."""
    # As texts are when they are read.
    words, between = (unicodedata.normalize("NFKC", text) for text in LABELS[language])
    if language in _RUN_ON:
        return rf"(?:{words})\s*(?:{between})?\s*:?"
    copula = rf"|\s(?:{between})(?!\w)" if between else ""
    return rf"(?<!\w)(?:{words})(?:\s+\w+){{0,2}}?(?:\s*[:=]{copula})"


_LABELS = "|".join(map(_label, LABELS))
# What says that the answer is ...
STATED = _compile(
    r"(?<!wrong )(?<!incorrect )(?<!worst )(?<!likely wrong )"
    rf"\b(?:answer|choice|option|response|selection)(?:\s+[a-z]+){{0,4}}? {_BE}\s*[:=]?\s*"
    r"|\b(?:answer|choice|option|response|selection|solution)(?: to (?:the|this) question)?"
    r"(?:\s*[:=→⇒]|\s*[-=]>| [-–—])\s*"
    r"|[\"'](?:\w{0,20}_)?(?:answer|choice|option|label|prediction|答案|选项)(?:_\w{1,12})?[\"']\s*:\s*"
    r"|^(?:the )?(?:most likely|correct|right|best)\s*:\s*"
    rf"|<(?:{ANSWER_TAGS}|option|choice)>\s*|\bans(?:\.|\s*:)\s*"
    r"|(?:正确选项|正确的选项|正确的是|选项)(?:应该|应当|应|就)?(?:是|为|选)?\s*:\s*"
    r"|(?:正确选项|正确的选项|正确的)(?:应该|应当|应|就)?(?:是|为|选)\s*"
    r"|(?:正确|最佳|合适|恰当)的?(?:选项|选择)(?:应该|应当|应|就)?(?:是|为)\s*"
    r"|答案\s*】?\s*(?:最)?(?:应该|应当|应|就|可能)?(?:是|为|选)?\s*:?\s*"
    rf"|(?:{_LABELS})\s*",
    _IM,
)
# What chooses ..., which others may do too: "many would pick A".
CHOSEN = _compile(
    r"\b(?:i|we|you)(?: would| will| should| must|'d|'ll|'m| am)? (?:choose|pick|select|go with|going with|answer|say)"
    r"\s*:?\s*|(?:^|[.:]\s)\s*(?:choose|pick|select)\s*:?\s+"
    r"|\b(?:leav(?:es|ing)|point(?:s|ing)? to|favou?rs|supports)\s+(?:us with\s+)?(?:only\s+)?"
    r"|(?<![不未挑可备误勿])(?<!不能)(?<!不应)(?<!不宜)(?<!不该)(?<!不要)(?:选择|应选|故选|所以选|因此选|我选|选)(?:择)?(?:的是)?\s*:?\s*"
    r"|(?:更支持|支持|指向|只剩下?|剩下)\s*",
    _IM,
)
# Words that may stand between such a phrase and what it names.
LEAD = _compile(
    r"(?:(?:the|la|le|el|die|der|das|de|lo)\s+)?"
    r"(?:(?:option|choice|letter|answer|opción|opzione|opção|opcja|вариант|pilihan|optie)\s+|选项\s*|第\s*)?"
    r"[(\[<{\"'“‘「【]*\s*",
    _I,
)
# "not A but B", "is not A, it is B": what is ruled out before what is named.
NOT_BUT = _compile(
    r"(?:(?<=\s)|^)(?:not|n't|neither)\s+(?:option\s+)?\(?[A-Z]\)?(?:,? (?:nor|or|not) \(?[A-Z]\)?)*,?\s+"
    r"(?:but|rather)(?: rather)?\s+|(?:不是|并非)\(?[A-Z]\)?\s*,?\s*(?:而是|应为|应是)",
    _I,
)
NAMED = _compile(r"([A-Za-z])(?![A-Za-z0-9])")
AFTER = _compile(
    r"\s*(?:$|[\n()\]<>}.,:;!?”’」。、【】|—]|[\"'](?![A-Za-z])|[-–]\s|because\b|since\b|as\b|which\b|and this\b"
    r"|rather\b|instead\b|not\b"
    r"|因为|由于|是因为|而|项|选项|正确|です|だ|입니다|이다|번)"
)
MORE = _compile(
    r"[)\].\"]*\s*(?:,|、|/|&|\+|和|与|或|及|and|or)+\s*(?:or |and )?(?:possibly |perhaps |maybe |also |可能是?)?"
    r"[(\[]*([A-Z])(?![A-Za-z0-9'])(?!\s*(?!and\b|or\b)[A-Za-z])"
)
JOINED = _compile(r"\s*(?:,|、|/|&|\+|和|与|或|及|and\b|or\b)+\s*(?:(?:or|and)\s+)?", _I)
RIGHT = _compile(
    # Not after any word: "vitamin A is the best" speaks of no option.
    r"(?:^|[^A-Za-z0-9\s]\s*|\b(?:option|choice|answer|so|thus|therefore|hence|that|think|believe|say)\s+)"
    r"[(\[]?([A-Z])[)\].]?(?![A-Za-z0-9])\s*(?:选项|项)?\s*"
    r"(?:(?:is|seems|appears|would be|must be)(?: to be)?(?: clearly)?(?: the)?(?: most| more| single)?(?: likely)? ?"
    r"(?:correct|right|best|appropriate|answer|accurate|likely|probable)"
    r"|[:-]\s*(?:correct|right|true|正确)\b"
    r"|(?:是|为)?最?(?:正确|合适|恰当|佳|符合)(?![吗与])|(?:是|为)最?对|对(?=$|[。,;!\s]))",
    _IM,
)
# The same after a marker of a list: "B) Correct - fever and cough".
JUDGED_RIGHT = _compile(
    r"^\W*(?:option |选项\s*)?\(?([A-Z])\)?(?:选项|项)?[).:]\s*(?:correct|right|true|正确|对|符合)(?![A-Za-z吗与])", _IM
)
# A line of a list with its mark.
TICKED = _compile(r"^(?=.*[✅✓✔☑√])(?!.*[❌✗✘✖])\W*(?:option |选项\s*)?([A-Z])(?![A-Za-z0-9])", _IM)
TICKED_BEHIND = _compile(r"(?<![A-Za-z0-9])([A-Z])(?:选项|项)?[ .):(]{0,3}[✅✓✔☑√]")
CROSSED = _compile(r"^.*[❌✗✘✖×]", re.MULTILINE)
# A genus: "C. difficile" names a germ, no option.
GENUS = _compile(r"\. ?([a-z]{3,})")
LEADING = _compile(
    r"[(\[<\"'“【]*([A-Za-z])(?:[)\]>”】]+|[\"'](?![A-Za-z])|[.:、,;!](?=\s|$|[^\x00-\x7f]|[A-Z])|(?=\s*$)|(?=\s*[-–—]\s))",
    re.MULTILINE,
)
MARKER = _compile(r"(?:^|(?<=[\s(]))([A-Z])[.):](?=\s|$|[^\x00-\x7f])", re.MULTILINE)
# What is said of an option right behind its letter or its text.
WRONG = _compile(
    r"[\s,;:.()\-–—]*(?:(?:which|this|it|that)\s+)?"
    r"(?:(?:is|was|are|were|would be|seems|appears|can be|could be)\s+(?:also |clearly |likely |less |most )*"
    r"(?:wrong|incorrect|false|unlikely|excluded|eliminated|ruled out|out\b|less likely|not\b)"
    r"|(?:also |clearly )?(?:wrong|incorrect|false|unlikely|excluded|eliminated|ruled out|less likely)"
    r"|not (?:correct|right|likely|appropriate|true|indicated|supported|consistent)\b"
    r"|isn't|wasn't|doesn't|cannot|can't|(?:does|do|did|can|could|would|will|has|have)\s?(?:not|n't)\b"
    r"|(?:选项|项)?[\s:,]*(?:也|都|均|是|可|可以|显然)*(?:错|不对|不正确|不符|不合|不支持|不考虑|有误|排除|缺乏|无关))"
    # Behind a comma, "not" and "不是" speak of another option: "B, not C".
    r"|\s*(?:选项|项)?\s*(?:也|都|均)?不是|[\s:.()\-–—]*no\b(?!\s*\.)",
    _I,
)
# Several letters that a text begins with.
SEVERAL = _compile(
    r"(?:(?:options?|选项)\s*)?[(\[]*[A-Z][)\].]*(?:\s*(?:,|、|/|和|与|或|及|and|or)+\s*[(\[]*[A-Z][)\].]*(?![A-Za-z]))+",
    _I,
)
# The last words, where they conclude: a bare letter may also end "hepatitis B".
CLOSING = _compile(
    r"(?:^|[\s.,;。])(?:so|thus|therefore|hence|it's|it is|it must be|综上|因此|所以"
    r"|(?:应该|应|就|我认为|我觉得|^)(?:是|为))"
    r"(?: it is| it's| it must be)?[,:]?\s*(?:option\s+|选项)?[(\[]?([A-Z])[)\]]?\s*[.!。]?\s*$"
    r"|[.!?。][ \t]+[(\[]?([A-Z])[)\]]?[.。]?\s*$|\n\s*[(\[]?([A-Z])[)\]]?[.。]?\s*$",
    _I,
)
MENTIONED = _compile(
    r"[(\[]([A-Z])[)\]]|\b(?:[Oo]ption|[Cc]hoice|OPTION)\s+([A-Z])(?![A-Za-z0-9])|选项\s*([A-Z])(?![A-Za-z0-9])"
    r"|(?<![A-Za-z0-9])([A-Z])\s*(?:选项|项)"
)
NEGATED = _compile(
    r"(?:\b(?:not|isn't|never|except|excluding|than|without|no|neither|nor|(?:rul(?:es?|ing) out)|unlike|instead of)\s+"
    r"(?:an?\s+|the\s+|option\s+)?|不是|并非|而非|不选|误选|排除了?|除了?)\(?$",
    _I,
)
# What takes back what was said before.
CORRECTED = _compile(
    r"\b(?:wait|actually|no,|correction|correct (?:this|that|myself)|mistake|mistaken|reconsider\w*|scratch that|sorry"
    r"|on (?:second thought|reflection|closer)|revis\w+|i was wrong|not right|let me re\w+"
    r"|after (?:review|re-?check)\w*)"
    r"|更正|纠正|不对|错了|重新|等等|等一下|哦不|修正|改(?:为|选|成)",
    _I,
)
