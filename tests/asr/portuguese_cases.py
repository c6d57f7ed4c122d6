"""What a reader says for what is written, by hand from grammars: written, said in Brazil, said in Portugal.

Where both say the same, the third is left out. Settings are the defaults: words, lower case, no punctuation.
"""

from __future__ import annotations

_SAME = """
0 | zero
1 | um
2 | dois
3 | três
9 | nove
10 | dez
11 | onze
14 | catorze
15 | quinze
18 | dezoito
20 | vinte
21 | vinte e um
22 | vinte e dois
35 | trinta e cinco
48 | quarenta e oito
50 | cinquenta
66 | sessenta e seis
70 | setenta
88 | oitenta e oito
99 | noventa e nove
100 | cem
101 | cento e um
115 | cento e quinze
121 | cento e vinte e um
200 | duzentos
342 | trezentos e quarenta e dois
500 | quinhentos
666 | seiscentos e sessenta e seis
700 | setecentos
999 | novecentos e noventa e nove
1000 | mil
1001 | mil e um
1010 | mil e dez
1100 | mil e cem
1101 | mil cento e um
1200 | mil e duzentos
1234 | mil duzentos e trinta e quatro
1500 | mil e quinhentos
1822 | mil oitocentos e vinte e dois
1974 | mil novecentos e setenta e quatro
1998 | mil novecentos e noventa e oito
2000 | dois mil
2001 | dois mil e um
2024 | dois mil e vinte e quatro
2.500 | dois mil e quinhentos
10.000 | dez mil
21.000 | vinte e um mil
100.000 | cem mil
100.100 | cem mil e cem
123.456 | cento e vinte e três mil quatrocentos e cinquenta e seis
200.300 | duzentos mil e trezentos
999.999 | novecentos e noventa e nove mil novecentos e noventa e nove
1.000.000 | um milhão
1.000.001 | um milhão e um
1.001.000 | um milhão e mil
1.050.000 | um milhão e cinquenta mil
1.200.000 | um milhão e duzentos mil
1.234.500 | um milhão duzentos e trinta e quatro mil e quinhentos
2.000.000 | dois milhões
2.100.350 | dois milhões cem mil trezentos e cinquenta
15.000.000 | quinze milhões
999.000.000 | novecentos e noventa e nove milhões
10 000 | dez mil
1 000 000 | um milhão
007 | zero zero sete
08 | zero oito
1234567890123456 | um dois três quatro cinco seis sete oito nove zero um dois três quatro cinco seis
0,5 | zero vírgula cinco
3,5 | três vírgula cinco
3,14 | três vírgula catorze
1,05 | um vírgula zero cinco
2,718 | dois vírgula sete um oito
1.234,5 | mil duzentos e trinta e quatro vírgula cinco
3.5 | três ponto cinco
1,5 milhão | um vírgula cinco milhão
a versão 2.0.1 | a versão dois ponto zero ponto um
-5 | menos cinco
−5 | menos cinco
–5 graus | menos cinco graus
de -3 a 4 | de menos três a quatro
-2,5 | menos dois vírgula cinco
(-1) | menos um
5% | cinco por cento
5 % | cinco por cento
1% | um por cento
12,5% | doze vírgula cinco por cento
100% | cem por cento
-0,3% | menos zero vírgula três por cento
3‰ | três por mil
R$ 1 | um real
R$1,00 | um real
R$ 2 | dois reais
R$ 2,50 | dois reais e cinquenta centavos
R$ 1,01 | um real e um centavo
R$ 0,99 | noventa e nove centavos
R$ 0,01 | um centavo
R$ 0 | zero reais
R$ 1,5 | um real e cinquenta centavos
R$ 1.234,56 | mil duzentos e trinta e quatro reais e cinquenta e seis centavos
R$ 200 | duzentos reais
R$ 1.000.000 | um milhão de reais
R$ 1.200.000 | um milhão e duzentos mil reais
R$ 3 mil | três mil reais
R$ 2 milhões | dois milhões de reais
R$ 3,5 milhões | três vírgula cinco milhões de reais
-R$ 5 | menos cinco reais
R$ -5,20 | menos cinco reais e vinte centavos
€ 5 | cinco euros
5 € | cinco euros
1€ | um euro
€ 2 milhões | dois milhões de euros
3 mil € | três mil euros
US$ 1 | um dólar
US$ 20 | vinte dólares
$ 5 | cinco dólares
14h30 | catorze horas e trinta minutos
14h | catorze horas
14 h | catorze horas
1h | uma hora
2h | duas horas
21h | vinte e uma horas
22h15 | vinte e duas horas e quinze minutos
0h30 | zero horas e trinta minutos
1h01 | uma hora e um minuto
08h05 | oito horas e cinco minutos
7h45min | sete horas e quarenta e cinco minutos
12h00 | doze horas
14:30 | catorze horas e trinta minutos
09:00 | nove horas
10:20:30 | dez horas e vinte minutos e trinta segundos
das 8h às 10h | das oito horas às dez horas
8h-10h | oito horas dez horas
25/12/1990 | vinte e cinco de dezembro de mil novecentos e noventa
07/09/1822 | sete de setembro de mil oitocentos e vinte e dois
10-20 | dez vinte
1939–1945 | mil novecentos e trinta e nove mil novecentos e quarenta e cinco
os anos 80 | os anos oitenta
4x4 | quatro x quatro
3D | três d
sub-20 | sub vinte
B2B | b dois b
2 horas | duas horas
1 hora | uma hora
2 dias | dois dias
1 vez | uma vez
32 vezes | trinta e duas vezes
2 mulheres | duas mulheres
200 pessoas | duzentas pessoas
201 pessoas | duzentas e uma pessoas
2 mil pessoas | duas mil pessoas
342 mil pessoas | trezentas e quarenta e duas mil pessoas
2.200 pessoas | duas mil e duzentas pessoas
2.200.000 pessoas | dois milhões e duzentas mil pessoas
2 milhões de pessoas | dois milhões de pessoas
2 mãos | duas mãos
2 irmãs | duas irmãs
2 viagens | duas viagens
5 m | cinco metros
1 kg | um quilo
70kg | setenta quilos
1,5 l | um vírgula cinco litros
30 °C | trinta graus celsius
-2ºC | menos dois graus celsius
70°F | setenta graus fahrenheit
2º C | segundo c
36,5º | trinta e seis vírgula cinco graus
90° | noventa graus
10 min | dez minutos
1º | primeiro
1ª | primeira
1.º | primeiro
2ª | segunda
3º | terceiro
4.ª | quarta
5° | quinto
10º | décimo
11º | décimo primeiro
12ª | décima segunda
20º | vigésimo
21.º | vigésimo primeiro
21ª | vigésima primeira
32º | trigésimo segundo
43º | quadragésimo terceiro
54º | quinquagésimo quarto
65º | sexagésimo quinto
76º | septuagésimo sexto
87ª | octogésima sétima
98º | nonagésimo oitavo
100º | centésimo
101ª | centésima primeira
1.000º | milésimo
1.101º | milésimo centésimo primeiro
2.000º | dois mil
2ª-feira | segunda-feira
3ª-feira | terça-feira
3ª feira | terça feira
4.ª-feira | quarta-feira
o 3º lugar | o terceiro lugar
século V | século quinto
século X | século décimo
século XI | século onze
Século XXI | século vinte e um
séc. XX | século vinte
séculos III e XIII | séculos terceiro e treze
Sr. João | senhor joão
o Sr.  Silva | o senhor silva
Sra. Maria | senhora maria
Sr.ª Ana | senhora ana
Srs. passageiros | senhores passageiros
Srta. Lia | senhorita lia
Dr. Rui | doutor rui
Dra. Eva | doutora eva
Dr.ª Eva | doutora eva
Prof. Caio | professor caio
Profa. Rita | professora rita
Prof.ª Rita | professora rita
Eng.º Luís | engenheiro luís
Exmo. Sr. Presidente | excelentíssimo senhor presidente
V. Exa. sabe | vossa excelência sabe
Av. da Liberdade, nº 10 | avenida da liberdade número dez
Av. Paulista, n.º 1.578 | avenida paulista número mil quinhentos e setenta e oito
Trav. do Sol, n° 3 | travessa do sol número três
pág. 12 | página doze
p. 7 | página sete
págs. 7 e 8 | páginas sete e oito
cap. 3 | capítulo três
art. 5º | artigo quinto
vol. 2 | volume dois
tel. 123 | telefone cento e vinte e três
p. ex. isto | por exemplo isto
p.ex. isto | por exemplo isto
pão, leite etc. | pão leite et cetera
Silva Jr. | silva júnior
Sto. Antônio | santo antônio
300 a.C. | trezentos antes de cristo
Costa & Filhos | costa e filhos
o mar. | o mar
ele está apto. | ele está apto
guarda-chuva | guarda-chuva
disse-me | disse-me
dar-lhe-ei | dar-lhe-ei
copo d’água | copo d'água
“Olá!”, disse ele… | olá disse ele
sim – não — talvez | sim não talvez
cafe\u0301 | café
so\u00adletra | soletra
ÁGUA | água
"""
_APART = """
16 | dezesseis | dezasseis
17 | dezessete | dezassete
19 | dezenove | dezanove
116 | cento e dezesseis | cento e dezasseis
1917 | mil novecentos e dezessete | mil novecentos e dezassete
1999 | mil novecentos e noventa e nove | mil novecentos e noventa e nove
2019 | dois mil e dezenove | dois mil e dezanove
19.000 | dezenove mil | dezanove mil
covid-19 | covid dezenove | covid dezanove
1.000.000.000 | um bilhão | mil milhões
1.000.000.001 | um bilhão e um | mil milhões e um
1.200.000.000 | um bilhão e duzentos milhões | mil e duzentos milhões
1.234.000.000 | um bilhão duzentos e trinta e quatro milhões | mil duzentos e trinta e quatro milhões
2.000.000.000 | dois bilhões | dois mil milhões
2.000.000.500 | dois bilhões e quinhentos | dois mil milhões e quinhentos
16.000.000.000 | dezesseis bilhões | dezasseis mil milhões
1.000.000.000.000 | um trilhão | um bilião
3.000.000.000.000 | três trilhões | três biliões
R$ 1.000.000.000 | um bilhão de reais | mil milhões de reais
R$ 5 bilhões | cinco bilhões de reais | cinco bilhões de reais
5 biliões € | cinco biliões de euros | cinco biliões de euros
€ 2,50 | dois euros e cinquenta centavos | dois euros e cinquenta cêntimos
2,50 € | dois euros e cinquenta centavos | dois euros e cinquenta cêntimos
0,50 € | cinquenta centavos | cinquenta cêntimos
10€50 | dez euros e cinquenta centavos | dez euros e cinquenta cêntimos
US$ 1,19 | um dólar e dezenove centavos | um dólar e dezanove cêntimos
16h17 | dezesseis horas e dezessete minutos | dezasseis horas e dezassete minutos
19:19 | dezenove horas e dezenove minutos | dezanove horas e dezanove minutos
01/05/2016 | primeiro de maio de dois mil e dezesseis | um de maio de dois mil e dezasseis
10 km | dez quilômetros | dez quilómetros
1 km | um quilômetro | um quilómetro
50 km/h | cinquenta quilômetros por hora | cinquenta quilómetros por hora
2 km² | dois quilômetros quadrados | dois quilómetros quadrados
século XIX | século dezenove | século dezanove
"""


def cases(language: str) -> list[tuple[str, str]]:
    """(written, said) in one variant."""
    found = []
    for line in [*_SAME.strip().splitlines(), *_APART.strip().splitlines()]:
        written, *said = (cell.strip() for cell in line.split(" | "))
        found.append((written, said[-1] if language == "pt-PT" else said[0]))
    return found
