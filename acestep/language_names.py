"""What people call the languages of lyrics: other codes, and names in English and in the language itself."""

_TABLE = """
ar ara arabic العربية
az aze azerbaijani azərbaycanca
bg bul bulgarian български
bn ben bengali bangla বাংলা
ca cat catalan català
cs ces cze cz czech čeština
da dan dk danish dansk
de deu ger german deutsch
el ell gre gr greek ελληνικά
en eng english
es spa spanish español castellano
fa fas per persian farsi فارسی
fi fin finnish suomi
fr fra fre french français
he heb iw hebrew עברית
hi hin hindi हिन्दी
hr hrv croatian hrvatski
ht hat haitian creole kreyòl
hu hun hungarian magyar
id ind in indonesian bahasa
is isl ice icelandic íslenska
it ita italian italiano
ja jpn jp japanese 日本語
ko kor kr korean 한국어
la lat latin latina
lt lit lithuanian lietuvių
ms msa may malay melayu
ne nep nepali नेपाली
nl nld dut dutch nederlands flemish
no nor nob nno nb nn norwegian norsk bokmål nynorsk
pa pan punjabi ਪੰਜਾਬੀ
pl pol polish polski
pt por portuguese português brazilian
ro ron rum romanian română moldovan
ru rus russian русский
sa san sanskrit संस्कृतम्
sk slk slo slovak slovenčina
sr srp serbian српски srpski
sv swe swedish svenska
sw swa swahili kiswahili
ta tam tamil தமிழ்
te tel telugu తెలుగు
th tha thai ไทย
tl tgl fil tagalog filipino
tr tur turkish türkçe
uk ukr ua ukrainian українська
ur urd urdu اردو
vi vie vietnamese việt
yue cantonese 廣東話 粤语
zh zho chi cmn cn chinese mandarin 中文 汉语 漢語 普通话
"""

ISO_CODES = {
    other: code
    for code, *others in map(str.split, _TABLE.strip().splitlines())
    for other in others
    if len(other) <= 3 and other.isascii() and other not in ("cz", "dk", "gr", "jp", "kr", "ua", "cn")
}
"""Codes of ISO 639 with two or three letters that mean the same as the code used in training."""

USUAL_NAMES = {
    other: code
    for code, *others in map(str.split, _TABLE.strip().splitlines())
    for other in others
    if other not in ISO_CODES
}
"""Names of languages, and codes of countries that people take for those of languages."""

OWN_NAMES = {
    "ar": "العربية",
    "az": "Azərbaycanca",
    "bg": "Български",
    "bn": "বাংলা",
    "ca": "Català",
    "cs": "Čeština",
    "da": "Dansk",
    "de": "Deutsch",
    "el": "Ελληνικά",
    "en": "English",
    "es": "Español",
    "fa": "فارسی",
    "fi": "Suomi",
    "fr": "Français",
    "he": "עברית",
    "hi": "हिन्दी",
    "hr": "Hrvatski",
    "ht": "Kreyòl",
    "hu": "Magyar",
    "id": "Bahasa Indonesia",
    "is": "Íslenska",
    "it": "Italiano",
    "ja": "日本語",
    "ko": "한국어",
    "la": "Latina",
    "lt": "Lietuvių",
    "ms": "Bahasa Melayu",
    "ne": "नेपाली",
    "nl": "Nederlands",
    "no": "Norsk",
    "pa": "ਪੰਜਾਬੀ",
    "pl": "Polski",
    "pt": "Português",
    "ro": "Română",
    "ru": "Русский",
    "sa": "संस्कृतम्",
    "sk": "Slovenčina",
    "sr": "Srpski",
    "sv": "Svenska",
    "sw": "Kiswahili",
    "ta": "தமிழ்",
    "te": "తెలుగు",
    "th": "ไทย",
    "tl": "Tagalog",
    "tr": "Türkçe",
    "uk": "Українська",
    "ur": "اردو",
    "vi": "Tiếng Việt",
    "yue": "粵語",
    "zh": "中文",
}
"""What people who speak a language call it, as they write it, by the code used in training."""
