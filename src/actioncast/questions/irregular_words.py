"""English words whose forms follow no rule."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _rows(text: str) -> dict[str, tuple[str, ...]]:
    rows = (row.split() for row in text.split(";"))
    return {base: tuple(forms) for base, *forms in rows}


VERBS = _rows("""
be am is are was were been being; bear bore borne; beat beat beaten; become became become; begin
began begun; bend bent; bind bound; bite bit bitten; bleed bled; blow blew blown; break broke
broken; breed bred; bring brought; build built; burn burnt; burst burst; buy bought; catch
caught; choose chose chosen; cling clung; come came come; cost cost; creep crept; cut cut; deal
dealt; dig dug; do does did done; draw drew drawn; drink drank drunk; drive drove driven; dwell
dwelt; eat ate eaten; fall fell fallen; feed fed; feel felt; fight fought; find found; fit fit;
flee fled; fling flung; fly flew flown; forget forgot forgotten; freeze froze frozen; get got
gotten; give gave given; go goes went gone; grind ground; grow grew grown; hang hung; have has
had; hear heard; hew hewn; hide hid hidden; hit hit; hold held; hurt hurt; keep kept; kneel
knelt; knit knit; know knew known; lay laid; lead led; lean leant; leap leapt; learn learnt;
leave left; lend lent; let let; lie lay lain lied; light lit; lose lost; make made; mean meant;
meet met; melt molten; mow mown; pay paid; prove proven; put put; quit quit; read read; rid rid;
ride rode ridden; ring rang rung; rise rose risen; run ran run; saw sawn; say said; see saw
seen; seek sought; sell sold; send sent; set set; sew sewn; shake shook shaken; shave shaven;
shed shed; shine shone; shoot shot; show shown; shrink shrank shrunk; shut shut; sing sang sung;
sink sank sunk; sit sat; sleep slept; slide slid; sling slung; slit slit; smell smelt; sow sown;
speak spoke spoken; spell spelt; spend spent; spill spilt; spin spun; spit spat; split split;
spoil spoilt; spread spread; spring sprang sprung; stand stood; steal stole stolen; stick stuck;
sting stung; stink stank stunk; strew strewn; stride strode stridden; strike struck stricken;
string strung; strip stript; swear swore sworn; sweat sweat; sweep swept; swell swollen; swim
swam swum; swing swung; take took taken; teach taught; tear tore torn; tell told; think thought;
throw threw thrown; thrust thrust; tread trod trodden; wake woke woken; wear wore worn; weave
wove woven; weep wept; wet wet; win won; wind wound; withdraw withdrew withdrawn; withhold
withheld; wring wrung; write wrote written
""")
"""Past and participle of a verb; -s and -ing are regular unless they stand here too."""
STRESSED = _words("""
begin forget regret control patrol prefer refer transfer confer defer infer deter occur incur
recur commit permit admit submit omit emit transmit compel expel propel rebel equip format
acquit abut upset reset
""")
"""Longer verbs with the stress on their last syllable, whose consonant doubles."""
PLURALS = _rows("""
child children; person people persons; man men; woman women; foot feet; tooth teeth; goose
geese; mouse mice; louse lice; ox oxen; die dice; penny pennies pence; calf calves; elf elves;
half halves; hoof hooves hoofs; knife knives; leaf leaves; life lives; loaf loaves; scarf
scarves scarfs; self selves; sheaf sheaves; shelf shelves; staff staves staffs; thief thieves;
wife wives; wolf wolves; fungus fungi funguses; cactus cacti cactuses; radius radii; focus foci
focuses; bacterium bacteria; criterion criteria; quiz quizzes
""")
"""The plurals of a noun."""
COMPOUNDED = _words("""
child woman tooth mouse knife leaf loaf shelf wolf thief half
""")
"""Which of them may end a longer noun: penknife, bookshelf. Life may not, for the olives."""
SINGULARS = _words("""
asparagus bus gas glass grass canvas lens molasses news hummus couscous series species citrus
octopus chess swiss
""")
"""Words in -s that are no plural."""
