"""Which language a text is in, by script, letters and function words: enough to check an instruction, no more.

The languages are the 30 that IFEval can ask for, and Chinese.
"""

import re
from collections import Counter

LANGUAGES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "gu": "Gujarati",
    "he": "Hebrew",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "kn": "Kannada",
    "ko": "Korean",
    "ml": "Malayalam",
    "mr": "Marathi",
    "ne": "Nepali",
    "pa": "Punjabi",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "sw": "Swahili",
    "ta": "Tamil",
    "te": "Telugu",
    "th": "Thai",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
# Scripts by code points; a script of one language decides alone.
_SCRIPTS = {
    "latin": "A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ",
    "cyrillic": "Ѐ-ӿ",
    "arabic": "\u0600-\u06ff\u0750-\u077f",
    "devanagari": "\u0900-\u097f",
    "kana": "\u3040-\u30ff",
    "han": "\u3400-\u4dbf\u4e00-\u9fff",
    "ko": "\u1100-\u11ff\uac00-\ud7af",
    "he": "\u0590-\u05ff",
    "bn": "\u0980-\u09ff",
    "pa": "\u0a00-\u0a7f",
    "gu": "\u0a80-\u0aff",
    "ta": "\u0b80-\u0bff",
    "te": "\u0c00-\u0c7f",
    "kn": "\u0c80-\u0cff",
    "ml": "\u0d00-\u0d7f",
    "th": "\u0e00-\u0e7f",
}
_PATTERNS = {script: re.compile(f"[{points}]") for script, points in _SCRIPTS.items()}
FUNCTION_WORDS = {
    "en": "the of and a to in is that it for was with as are on be this by at from or an not have has which you but "
    "can may he she his her their they what when will i your we if all there been do does how its than these "
    "other into should",
    "de": "der die das und ist nicht ein eine den dem von mit zu auf für im sich des als auch es an werden aus er "
    "hat dass sie nach wird bei einer um am sind noch wie einem über oder ich wir kann",
    "fr": "le la les et est des du une un dans que qui pour pas sur au avec ce il par plus ne se en sont cette ou "
    "mais nous vous je elle aux être ont comme leur peut",
    "es": "el la los las y es de que en un una por con para del se no su al lo como más pero sus le ya o este sí "
    "porque esta son entre está cuando muy sin sobre también fue puede",
    "pt": "o a os as e é de que em um uma por com para do da se não dos das no na mais mas ao ele como foi são ou "
    "ser quando muito há nos já está eu também só pelo pela você pode",
    "it": "il lo la i gli le e è di che in un una per con del della non si dei al da sono come più ma anche alla "
    "nel ha delle questo su o se dal essere può sua loro perché",
    "pl": "i w na z się nie do to że jest o jak po co ale za od tak przez może są dla ich tym lub przy który która "
    "oraz czy jego być tylko już",
    "fi": "ja on ei se että hän oli joka mutta ovat myös kun niin tai sen mitä voi kuin jos ole olla tämä hänen "
    "vain nyt sitä ne sekä minä sinun",
    "sw": "na ya wa kwa ni katika za la kuwa hii cha yake kama si ili lakini pia watu hiyo au huu ambayo sana wao "
    "hilo vya wake kutoka hivyo baada zaidi",
    "vi": "và là của có không được một các trong cho với những này người đã khi để từ cũng như về nhưng rất bạn tôi "
    "sẽ đó vào hay nếu",
    "ru": "и в не на что он с как это по но из у за от так же для к все она бы было его или ты мы вы они был также "
    "быть есть может при после я",
    "uk": "і в не на що він з як це по але із у за від так для до все вона б було його або ти ми ви вони був також "
    "бути є може при після та й щоб які",
    "bg": "и в не на че той с като това по но от за до се е са да ще или ти ние вие те беше също бъде има може при "
    "след която който които си",
    "ar": "في من على أن إلى هذا التي الذي عن مع هذه ما لا كان هو هي كما أو بين كل قد ذلك بعد عند لم يمكن و يكون",
    "fa": "در از که به این را با است برای آن یک می تا بر شما ما خود هم های شود و نیز او هر کرد کند باید اگر بود",
    "ur": "کے میں کی ہے اور سے کا کو اس کہ نے پر ہیں یہ ایک بھی نہیں تھا جو وہ ہو کر لیے آپ ہم کیا گیا",
    "hi": "के में की है और से का को इस कि ने पर हैं यह एक भी नहीं था जो वह हो कर लिए आप हम तो या होता करते",
    "mr": "आणि आहे या ते हे मध्ये ची चा चे असे एक नाही तो ती आहेत होते पण किंवा मी आपण त्या केले करून साठी म्हणून",
    "ne": "छ र हो को मा यो लाई पनि गर्न भने एक छन् हुन्छ गरेको तर थियो छैन म हामी तपाईं वा गर्ने यस त्यो लागि गर्दछ",
}
# Letters that stand in one language of their script and hardly in its neighbours.
_LETTERS = {
    "de": "ßäöü",
    "fr": "çœêèùâîû",
    "es": "ñ¿¡",
    "pt": "ãõ",
    "it": "ìòù",
    "pl": "łąęśźżćń",
    "fi": "äö",
    "vi": "ơưđạảấầẩẫậắằặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ",
    "ru": "ыэё",
    "uk": "іїєґ",
    "bg": "ъ",
    "fa": "پچژگک",
    "ur": "ٹڈڑںےھ",
    "ar": "ةىأإ",
    "mr": "ळ",
}
_GROUPS = {
    "latin": ("en", "de", "fr", "es", "pt", "it", "pl", "fi", "sw", "vi"),
    "cyrillic": ("ru", "uk", "bg"),
    "arabic": ("ar", "fa", "ur"),
    "devanagari": ("hi", "mr", "ne"),
}
_SETS = {code: frozenset(words.split()) for code, words in FUNCTION_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+(?:[\u0300-\u036f\u0900-\u0903\u093a-\u094f]+[^\W\d_]*)*")
_LETTER_SHARE = 0.5
# Below this share of function words, plain ASCII is English: terms, names and lists have none.
_WEAK = 0.2


def language_of(text: str) -> str | None:
    """Code of the language that most of a text's letters are in; None where letters do not tell.

    The commonest script decides first (Japanese: kana among Han), then, within a script, the share of function words
    and of letters of one's own. Plain ASCII with next to neither is English.
    """
    counts = Counter({script: len(pattern.findall(text)) for script, pattern in _PATTERNS.items()})
    east = counts["kana"] + counts["han"]
    if east > max((n for script, n in counts.items() if script not in ("kana", "han")), default=0):
        # Japanese prose is a third kana or more; a Chinese text quotes a few at most.
        return "ja" if counts["kana"] > 0.1 * east else "zh"
    script, count = counts.most_common(1)[0]
    if not count:
        return None
    if script not in _GROUPS:
        return script
    lowered = text.lower()
    words = _WORD.findall(lowered)
    scores = {code: _score(code, words, lowered) for code in _GROUPS[script]}
    best = max(scores, key=lambda code: scores[code])
    if script == "latin" and text.isascii() and scores[best] < _WEAK:
        return "en"
    return best if scores[best] > 0 else None


def _score(code: str, words: list[str], text: str) -> float:
    functions = sum(word in _SETS[code] for word in words) / max(1, len(words))
    own = sum(text.count(letter) for letter in _LETTERS.get(code, "")) / max(1, len(words))
    return functions + _LETTER_SHARE * min(own, 1.0)
