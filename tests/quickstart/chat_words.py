"""Words and sentences of the quickstart's conversations, in Portuguese (pt) and English (en)."""

LANGUAGES = ("pt", "en")

PEOPLE = (
    "Ana", "Bruno", "Carla", "Diogo", "Elisa", "Hugo", "Inês", "João", "Laura", "Nuno", "Rita", "Alice", "Edward",
    "Helen", "Kate", "Peter",
)  # fmt: skip

GOODS = {
    "pt": (
        "maçãs", "peras", "laranjas", "livros", "cadernos", "canetas", "camisas", "chapéus", "copos", "ovos", "bolos",
        "flores", "velas", "cadeiras", "caixas", "bilhetes",
    ),
    "en": (
        "apples", "pears", "oranges", "books", "notebooks", "pens", "shirts", "hats", "glasses", "eggs", "cakes",
        "flowers", "candles", "chairs", "boxes", "tickets",
    ),
}  # fmt: skip

PLACES = tuple(
    {"pt": pt, "en": en}
    for pt, en in (
        ("Lisboa", "Lisbon"), ("Coimbra", "Coimbra"), ("Évora", "Évora"), ("Faro", "Faro"), ("Recife", "Recife"),
        ("Luanda", "Luanda"), ("Londres", "London"), ("Paris", "Paris"), ("Roma", "Rome"), ("Berlim", "Berlin"),
        ("Praga", "Prague"), ("Dublin", "Dublin"),
    )
)  # fmt: skip

PURCHASE_KEYS = {"pt": ("quem", "quantos", "o que", "onde"), "en": ("who", "how many", "what", "where")}
PURCHASES = {
    "pt": (
        "{who} comprou {many} {what} em {where}.",
        "Ontem {who} comprou {many} {what} em {where}.",
        "Em {where}, {who} comprou {many} {what}.",
        "Foi em {where} que {who} encontrou {many} {what}.",
        "{who} foi a {where} e trouxe {many} {what}.",
        "Anota: {many} {what} para {who}, entrega em {where}.",
    ),
    "en": (
        "{who} bought {many} {what} in {where}.",
        "Yesterday {who} bought {many} {what} in {where}.",
        "In {where}, {who} bought {many} {what}.",
        "It was in {where} that {who} found {many} {what}.",
        "{who} went to {where} and brought back {many} {what}.",
        "Take a note: {many} {what} for {who}, to be sent to {where}.",
    ),
}

UNIT_KEYS = {"pt": ("valor", "unidade"), "en": ("value", "unit")}
UNITS = {  # large, small, how the answer writes the small one, how many of it
    "pt": (
        ("quilómetros", "metros", "m", 1000),
        ("quilos", "gramas", "g", 1000),
        ("litros", "mililitros", "ml", 1000),
        ("toneladas", "quilos", "kg", 1000),
        ("metros", "centímetros", "cm", 100),
        ("euros", "cêntimos", "c", 100),
        ("centímetros", "milímetros", "mm", 10),
        ("séculos", "anos", "anos", 100),
    ),
    "en": (
        ("kilometres", "metres", "m", 1000),
        ("kilograms", "grams", "g", 1000),
        ("litres", "millilitres", "ml", 1000),
        ("tonnes", "kilograms", "kg", 1000),
        ("metres", "centimetres", "cm", 100),
        ("euros", "cents", "c", 100),
        ("centimetres", "millimetres", "mm", 10),
        ("centuries", "years", "years", 100),
    ),
}
ASKS_UNIT = {
    "pt": (
        "Quantos {small} são {amount} {large}?",
        "{amount} {large} em {small}?",
        "Passa {amount} {large} a {small}.",
    ),
    "en": (
        "How many {small} are {amount} {large}?",
        "{amount} {large} in {small}?",
        "Turn {amount} {large} into {small}.",
    ),
}

CAPITAL_KEYS = {"pt": ("capital", "país"), "en": ("capital", "country")}
ASKS_CAPITAL = {
    "pt": (
        "Qual é a capital {of} {country}?",
        "Diz-me a capital {of} {country}.",
        "Capital {of} {country}?",
        "Como se chama a capital {of} {country}?",
        "Procuro a capital {of} {country}.",
    ),
    "en": (
        "What is the capital of {country}?",
        "Tell me the capital of {country}.",
        "Capital of {country}?",
        "How is the capital of {country} called?",
        "I am looking for the capital of {country}.",
    ),
}
COUNTRIES = tuple(
    {"of": of, "pt": (pt, capital), "en": (en, english)}
    for of, pt, capital, en, english in (
        ("de", "Portugal", "Lisboa", "Portugal", "Lisbon"),
        ("do", "Brasil", "Brasília", "Brazil", "Brasília"),
        ("de", "Angola", "Luanda", "Angola", "Luanda"),
        ("de", "Moçambique", "Maputo", "Mozambique", "Maputo"),
        ("de", "Espanha", "Madrid", "Spain", "Madrid"),
        ("de", "França", "Paris", "France", "Paris"),
        ("da", "Itália", "Roma", "Italy", "Rome"),
        ("da", "Alemanha", "Berlim", "Germany", "Berlin"),
        ("da", "Áustria", "Viena", "Austria", "Vienna"),
        ("da", "Grécia", "Atenas", "Greece", "Athens"),
        ("da", "Irlanda", "Dublin", "Ireland", "Dublin"),
        ("da", "Polónia", "Varsóvia", "Poland", "Warsaw"),
        ("da", "Suécia", "Estocolmo", "Sweden", "Stockholm"),
        ("da", "Noruega", "Oslo", "Norway", "Oslo"),
        ("da", "Finlândia", "Helsínquia", "Finland", "Helsinki"),
        ("da", "Dinamarca", "Copenhaga", "Denmark", "Copenhagen"),
        ("da", "Hungria", "Budapeste", "Hungary", "Budapest"),
        ("do", "Japão", "Tóquio", "Japan", "Tokyo"),
        ("do", "Peru", "Lima", "Peru", "Lima"),
        ("do", "Egito", "Cairo", "Egypt", "Cairo"),
    )
)
