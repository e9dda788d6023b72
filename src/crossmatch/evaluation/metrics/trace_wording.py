"""Words of thinking aloud: how a trace without markers begins, how it is announced, and how it hesitates."""

import re

from crossmatch.data.text_forms import one_form


def _compile(pattern: str, flags: int) -> re.Pattern[str]:
    """An expression for texts whose Han characters are in one form, as its own are."""
    return re.compile(one_form(pattern), flags)


# What people and models say they do when they think, not what they tell a patient to do.
_MUST = r"(need( to)?|should|have to|must|ought to|want to)"
_MIND = (
    r"(think|figure|find|recall|remember|determine|decide|work|consider|look|identify|start|begin|check|clarify|define"
    r"|understand|analy[sz]e|examine|evaluate|go through|break|solve|answer|explain|reason)"
)
_PONDER = r"(想|看|分析|思考|考虑|回忆|回顾|推理|判断|确定|梳理|理清|弄清|搞清|回答|找)"
_PAUSE = r"(好的?|好吧|行|嗯|那么?)[，,。！]\s*"
LEXICAL = _compile(
    r"\b(okay|alright|hmm)[,.]? (so|let)\b"
    r"|\blet(['’]s| me| us) (think|break|see|analy|consider|recall|remember|look at|examine|figure|reason|work|check"
    r"|go through|start (by|with)|re-?read)"
    r"|\b(think|reason|work|walk|go|proceed|analy[sz]e|solve)\b[^.\n]{0,40}\bstep by step|^step by step"
    r"|^hmm+\b|^wait,|^thinking (this )?(through|about) (this|it)\b"
    r"|^(okay|ok|alright|well|now)[,.]? (i|we|first,? (i|we)|this is|the (user|question|problem))\b"
    r"|^(first|so),? let(['’]s| me| us)\b"
    rf"|^(first|so),? (i|we) {_MUST}\b|^(so,? )?(i|we) {_MUST} {_MIND}\b|^(so,? )?we( a|['’])re asked\b"
    r"|^(so,? )?the (user|question|problem) (asks|wants|is asking|says)\b"
    rf"|嗯[，,。]|让我们?(来|先|再|仔细|一起|逐一|逐个|好好)*({_PONDER}|从[^，。\n]{{1,8}}开始)|一步一步"
    rf"|(一步步|逐步)(来|地|的)?{_PONDER}|我(先|再|来){_PONDER}"
    rf"|^({_PAUSE})?首先[，,]?\s*(我(需要|要|得|应该)|我们(需要|要|得|应该)(先)?{_PONDER}|用户)"
    rf"|^({_PAUSE})?我们?(现在)?(需要|要|得|应该)先?{_PONDER}"
    rf"|^{_PAUSE}(用户|我(现在)?(需要|得|应该|先)|首先看|这(是一个|个|道)(问)?题)"
    r"|^用户(问|想|询问|提到|提问|希望|的问题)|^等(等|一下)[，,]|^(这道)?题目?(问|要求)",
    re.IGNORECASE,
)
# What may stand before a heading, and around it: mark-up, brackets, a picture of thinking.
_BEFORE = r"(?:[\s#*_>(（\[【🤔💭🧠]|<(?:b|strong|i|em|p|u|h[1-6])>)*"
_END = r"(?:[*_)）\]】\s]*[:：]|[*_)）\]】]*\s*(?:\n|\Z)|[*_]*[\])）】])"
_THINKING = r"(?:thinking|thought|reasoning)(?: (?:process|steps?|path|trace|chain))?"
_OWN = r"(?:(?:my|the|our|internal|inner|step[- ]by[- ]step|detailed|model['’]s)[ -]){1,3}"
_TO_ZH = "(?:以下|下面|这|如下)(?:就)?是?(?:我|本题|模型)?的?"
_TRACE_ZH = (
    "(?:思考|推理)(?:过程|步骤|链)|(?:解题|答题|分析|推理|思考|做题)思路|思维链|逐步(?:推理|思考|分析)"
    "|(?:内心|内部)(?:独白|思考)"
)
# A heading that announces a trace which no marker closes (Qwen 3.5, Gemma, Phi and others without their template).
# "Thought process: linear" is how a patient's mind is described: on one line, these words alone are no heading.
_HEADING = _compile(
    rf"{_BEFORE}(?:"
    r"here(?:['’]s| is| are) (?:(?:a|an|my|the|our) )?(?:[\w-]+ ){0,3}?(?:of (?:a|an|my|the|our) )?(?:[\w-]+ ){0,2}?"
    rf"{_THINKING}(?![\w-])[^\n:：]{{0,100}}[:：]"
    r"|here(?:['’]s| is) how i (?:thought|reasoned|arrived|reached|got|came|worked|approached|think|reason)"
    r"[^\n:：]{0,80}[:：]"
    rf"|{_OWN}{_THINKING}(?: (?:is|goes) as follows)?{_END}"
    rf"|(?:{_THINKING}|thoughts|scratch ?pad)[*_)）\]】]*[:：]?[*_)）\]】]*\s*(?:\n|\Z)"
    rf"|(?:reasoning(?: (?:process|steps?))?|thinking (?:process|steps?)|chain[- ]of[- ]thought|scratch ?pad){_END}"
    rf"|(?:internal|inner) monologue{_END}|(?<=[(（\[【*_]){_THINKING}{_END}"
    r"|thinking ?(?:\.\.\.|…)|thought for (?:\d+|a few|a couple of) ?(?:s|sec|second|minute)"
    r"|let(?: me|['’]s| us) (?:think|reason|work)[^\n:：]{0,40}[:：]"
    rf"|(?:{_TO_ZH})?(?:{_TRACE_ZH})(?:如下|是)*{_END}|{_TO_ZH}(?:思路|思考|推理|思维过程){_END}"
    rf"|(?:我|我们|本题)的?(?:思路|思考|推理|想法|思维过程)(?:如下|是)*{_END}|(?:思路|思考|推理){_END}"
    r"|思维过程[*_)）\]】]*[:：]?[*_]*\s*\n"
    r"|让我们?(?:来|一起|一步一步|一步步|逐步)*地?(?:来)?(?:思考|分析|推理)(?:一下)?[:：]"
    r")",
    re.IGNORECASE,
)
# "Wait" and "等等" have other uses ("wait 2 weeks", "发热等等"): they count where a sentence or an aside begins with
# them, and nothing follows that is waited for.
_LEAD = (
    r"(?:but|oh|no|and|so|or|yet|however|although|though|actually|okay|ok|alright|well|now|then|also|yes|hey|ah|right"
    r"|不过|但是|但|可是|然而|哦|啊|那么?|诶|咦|哎|所以|先)"
)
_BEGINS = _compile(
    rf"[.!?…。！？\n(（\[“”\"—–*_][\s\"“‘'(（*_—–-]*(?:{_LEAD}[,，.]?\s?){{0,3}}[*_]*\Z"
    rf"|\b(?:[Hh]m+|[Uu]h+m?)[,.…]+ \Z|[—–-] \Z",
    re.IGNORECASE,
)
_PAUSED = r"(?=[*_]*(?:[,.!?…]|$|\s[—–-]|[—–])(?!\s*(?:then|and (?:then|repeat)|until|for|at least)\b))"
# What a thought goes on with behind a "wait" without a pause; "wait the full 15 minutes" is an instruction.
_GOES_ON = (
    r"(?:no|actually|maybe|but|let me|so|i['’]m|what|i (?:need|think|should|am|was|made|missed|forgot|have|remember)"
    r"|is (?:it|that|this|the)|that(?:['’]s|s| is| can| does| means| was| would)|this (?:is|isn|can|does)"
    r"|the (?:question|user|problem|answer|option|text|prompt)|it(?:['’]s| is))\b"
)
_LOOKS_AGAIN = (
    r"(?:re-?\w+|double[- ]check|check|verify|think|see|look|consider|figure|work|reason|go (?:back|over|through)"
    r"|analy[sz]e|break|examine|evaluate|start|try|count|comput|calculat|make sure|just|be (?:careful|sure)|step back)"
)
_WE_LOOK_AGAIN = (
    r"(?:(?:double|triple)[- ]check|re-?(?:check|read|think|consider|examine|evaluate|visit|assess|calculate|do)\b"
    r"|verify|think again|go back|step back|see\b)"
)
_A_MOMENT = r"a (?:minute|moment|second|sec)"
_AT_BEGIN = _compile(
    rf"(?<![a-z])wait(?![a-z])(?:{_PAUSED}|(?=\s{_GOES_ON})|(?=\s{_A_MOMENT}[,.!?…—]))"
    rf"|\b(?:hold|hang) on(?: {_A_MOMENT})?(?![a-z]){_PAUSED}"
    rf"|\b(?:on second thoughts?|scratch that)\b|\blet me {_LOOKS_AGAIN}|\blet['’]s {_WE_LOOK_AGAIN}"
    r"|(?:等等|等一下|等下|等会儿?|稍等|且慢|慢[着著])(?=[，,。！…!.？?—\s]|$|[我这不让题])"
    r"|不对(?=[，,。！!…\s]|$)",
    re.IGNORECASE | re.MULTILINE,
)
# Short sounds count wherever they stand; in capitals they are abbreviations (HMM, ERM).
_SOUNDS = _compile(
    r"(?<![A-Za-z])(?:[Hh]mm+(?![A-Za-z])|(?:[Hh]m|[Uu]h+m?|[Uu]m+|[Ee]rm+)(?=[,.…]))"
    r"|(?<=[。！？\n，,；;：:…（(“])\s{0,4}(?:嗯+|唔+|呃+|额)(?=[，,。！…!.—\s]|$)"
    r"|(?<=[。！？\n，,；;：:…（(“])\s{0,4}我再(?:看看|想想|检查|核对|确认|算)"
    r"|让我们?(?:再|先|来|重新|仔细|想|看|回|检查|确认|核对|复核|分析|思考|考虑)",
    re.MULTILINE,
)
_AROUND = 60


def announces_trace(text: str) -> bool:
    """Whether a text begins with the heading of a trace."""
    return _HEADING.match(one_form(text)) is not None


def hesitations(text: str) -> int:
    """How often a text hesitates, in English and Chinese."""
    lines = "\n" + one_form(text)
    before = (lines[max(0, match.start() - _AROUND) : match.start()] for match in _AT_BEGIN.finditer(lines))
    return sum(_BEGINS.search(part) is not None for part in before) + sum(1 for _ in _SOUNDS.finditer(lines))
