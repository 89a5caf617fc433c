"""placeholder until execute lands"""


class Executions:
    def __init__(self, *a):
        self.table = {}
        self.heard = {}
